"""Samples of HEST-1k and of the HEST benchmark: an AnnData file per sample, and what lies beside it under its name."""
