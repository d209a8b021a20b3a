"""The N:M regularizer and its proximal operator: pure functions on tensors, without models or files."""
