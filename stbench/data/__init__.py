"""Prepared data: what trials are given of a dataset, and how it is split."""
