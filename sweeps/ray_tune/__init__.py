"""Runs trials with Ray Tune: its searcher, scheduler and callback as thin adapters of plain objects."""
