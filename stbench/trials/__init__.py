"""Trials: one method, one dataset, one fold, one seed."""
