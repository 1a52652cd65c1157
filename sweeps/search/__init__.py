"""Who suggests the next configuration and who stops the worse ones; what Optuna is told of their ends."""
