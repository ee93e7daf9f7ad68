"""Packages written from templates: a method or a dataset of somebody's own, small, working and tested."""
