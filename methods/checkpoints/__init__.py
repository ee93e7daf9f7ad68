"""Checkpoints that the authors of the methods published, loaded as our networks: one file per method."""
