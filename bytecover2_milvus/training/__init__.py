"""Training in torch: data, loop, checkpoints."""
