"""Training: the state of a run, its loop and one step of it, gradients, resuming."""
