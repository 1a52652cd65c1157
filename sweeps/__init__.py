"""Hyperparameter sweeps of the few-shot detector.

Read in this order: `run` (the command), `config` (what a YAML may say), `trial.messages` (what travels between
driver and worker), `session.trials` (how a trial's outcome is decided and reported), `search.searcher` (how it is
reported to Optuna). The map is docs/architecture.md.
"""
