"""Trained models on an image that nobody measured: spots or a grid over its tissue, what is predicted, the file."""
