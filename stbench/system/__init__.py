"""The machine and the process: files, locks, memory, precision, and calls into code of strangers."""
