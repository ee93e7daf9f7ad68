"""Predictions made elsewhere: read, checked, and scored like any other."""
