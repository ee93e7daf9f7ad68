"""What methods of torch share: batches, patches, encoders, and the training loop."""

from __future__ import annotations

from ..moved import OF_TRAINING, attributes_of

__getattr__ = attributes_of("stbench.training", OF_TRAINING)
