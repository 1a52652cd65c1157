"""The best and the baselines again over fresh seeds: who wins, by how much, and through which setting."""
