"""Readers: one file per format, each returning a :class:`stbench.slides.slide.Slide`."""
