"""Trials as job arrays of Slurm: the files that are sent, what Slurm says of its jobs, and the engine that watches."""
