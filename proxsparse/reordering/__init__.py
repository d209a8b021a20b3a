"""The order of a model's channels, changed so that groups of n of m keep more; what the model computes stays the same."""
