"""Datasets, and the batches and episodes that are drawn from them."""
