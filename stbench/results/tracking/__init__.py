"""MLflow, fed from a results directory: a parent run for the benchmark, a child for each trial, again and again.

The directory is the truth; whatever stands in MLflow is derived from it, and made complete by feeding it once more.
"""
