"""Training: recipe, input pipeline, devices, training loop and checkpoints."""
