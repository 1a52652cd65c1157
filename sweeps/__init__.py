"""Sweeps: the trainer of `fsdet`, run many times to find the settings that work.

Read in this order: `run` (the command), `spec` (what a YAML may say), `session.orchestrator` (how
trials are run), `trial.trial` (one trial), `search.searcher` (what the sampler is told), `tracking`
(what MLflow is told).
"""
