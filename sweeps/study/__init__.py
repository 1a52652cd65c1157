"""The Optuna study of a sweep: what was suggested and how it ended, in a file or a database."""
