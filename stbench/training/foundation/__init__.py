"""Published image encoders by name: a table of what each is, and what builds it and reads its file."""
