"""How good a masked model is: perplexity, output error layer by layer, zero-shot accuracy."""
