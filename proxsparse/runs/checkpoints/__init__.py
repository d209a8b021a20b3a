"""Checkpoints of a run: one file that a process wrote alone, or a directory of the parts that several wrote together."""
