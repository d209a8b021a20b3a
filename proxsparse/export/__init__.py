"""The sparse model on disk: dense with zeros or compact, verified against the original, accelerated, timed."""
