"""Whether the differences between methods are more than chance."""
