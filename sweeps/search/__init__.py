"""Which configuration is tried next, how its end is reported to Optuna, when a sweep stops."""
