"""Readers: one file a format, each returning a :class:`stbench.slides.slide.Slide`."""
