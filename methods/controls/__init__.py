"""Trivial ways to predict expression. They frame every score: what does not beat them has not learnt from the image."""

from __future__ import annotations

from .image import ColourRidge, FeatureKNN, FeaturePCARidge, FeatureRidge
from .profiles import DepthOracle, NearestReplicate, PositionKNN, TrainingMean

__all__ = [
    "ColourRidge",
    "DepthOracle",
    "FeatureKNN",
    "FeaturePCARidge",
    "FeatureRidge",
    "NearestReplicate",
    "PositionKNN",
    "TrainingMean",
]
