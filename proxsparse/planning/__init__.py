"""Whether a model can be learned on given GPUs, known before anything is loaded."""
