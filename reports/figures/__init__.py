"""Figures, and what they share."""
