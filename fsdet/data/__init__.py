"""Sources of images, and how they are dealt out as batches and episodes."""
