"""Scores of predictions, and what speaks for or against them."""
