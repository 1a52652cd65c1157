"""Trials run by Ray Tune: its searcher, scheduler and callback, each a thin wrapper around plain objects."""
