"""The pages and files that are written."""
