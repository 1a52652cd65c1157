"""One trial: everything that runs in a worker."""
