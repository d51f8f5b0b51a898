"""One train step, its state and its checkpoints."""
