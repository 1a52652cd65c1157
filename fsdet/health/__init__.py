"""Whether a run is healthy: the explosion rules after each step, the checklist at its end."""
