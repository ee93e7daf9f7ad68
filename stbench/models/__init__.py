"""Trained methods as folders of their own: what a model was trained on, how well it did, and how it is read again."""
