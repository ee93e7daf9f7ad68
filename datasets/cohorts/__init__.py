"""Cohorts: the user's own sections, imported into a folder below the data folder and found by its name afterwards."""
