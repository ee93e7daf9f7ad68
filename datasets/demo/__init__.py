"""The embedded demo: two sections each of three made-up patients, whose truth, and so what can be reached, is known."""

from __future__ import annotations

from .dataset import Demo

__all__ = ["Demo"]
