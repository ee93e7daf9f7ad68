"""Engines give out planned trials. They know nothing but "run trial KEY of RESULTS"."""
