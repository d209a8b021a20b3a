"""N:M masks: groups of weights, which of them a layer keeps, and how a mask is stored."""
