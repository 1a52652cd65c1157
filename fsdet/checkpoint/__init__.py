"""Checkpoints: what is in one (`content`), and how the one that a user names is found (`lookup`, without torch)."""
