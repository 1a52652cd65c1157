"""The best and the baselines again over fresh seeds: which is better, by how much, and due to which setting."""
