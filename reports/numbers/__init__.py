"""The arithmetic of reports: no words, no ink."""
