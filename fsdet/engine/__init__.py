"""Training: the loop, its state, gradients, stability, evaluation, files."""
