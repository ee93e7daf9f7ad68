"""Slides: image, spots and counts, as readers return them, and what makes them valid."""
