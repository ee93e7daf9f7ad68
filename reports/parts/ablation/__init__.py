"""What each choice of a method contributes."""
