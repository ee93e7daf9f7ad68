"""The results directory: which trials a run plans, and the one tidy table of what became of them.

The directory is the truth: ``run.json`` names the trials that count, ``specs/`` says what each is, ``trials/`` holds
what each gave. ``summary.csv`` and everything in MLflow is derived from it and can be made again.
"""
