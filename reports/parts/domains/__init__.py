"""Whether predictions show the tissue's domains."""
