"""Datasets: one file each, found by the harness through the entry-point group ``stbench.datasets``."""
