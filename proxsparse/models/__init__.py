"""Where weights come from, how a forward pass is computed, and what enters each layer."""
