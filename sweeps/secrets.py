"""Keeps passwords and tokens out of everything that anyone may read.

A URL with a password exists in the memory of the driver and in the variable or file that it came from.
Everything that is written has its secrets removed; a later command that needs the full URL asks for the
variable again.
"""

from __future__ import annotations

import os
import re

from sweeps.errors import SweepError

SECRETS = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SECURITY_TOKEN",
    "AWS_SESSION_TOKEN",
    "RAY_AUTH_TOKEN",
)
"""Environment variables with secrets that libraries read."""
FOR_THE_DRIVER = (
    "OPTUNA_STORAGE",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_BACKEND_STORE_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "DATABRICKS_TOKEN",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICEFILE",
    "MYSQL_PWD",
)
"""Environment variables that lead to the databases of study and runs, which trials never use."""
REDACTED = "…"
"""Replaces a secret."""
USER = re.compile(r"://(?:[^\s/:@]*:\S*|[^\s/?#]*)@")
"""All before the host of a URL; a password may hold a slash or an @ of its own."""
NAMED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|credential|signature|(?:api|access)_?key)|sig)"
    r"=[^&\s'\"]+"
)
"""A secret among the options of a URL."""


def without_password(text: str) -> str:
    """`text` for a message: without user and password of a URL, tokens and passwords."""
    text = USER.sub(f"://{REDACTED}@", text)
    text = NAMED.sub(rf"\1={REDACTED}", text)
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, REDACTED)
    return text


def holds_secret(url: str) -> bool:
    """Whether `url` must not be written anywhere."""
    return without_password(url) != url


def full_url(recorded: str, variable: str, what: str) -> str:
    """The full URL of one that was recorded without its secret.

    Args:
        recorded: without the secret, if it had one.
        variable: environment variable that may hold the full one.
        what: whose URL, for the message.

    Raises:
        SweepError: it had a secret, and the variable does not hold the URL.
    """
    if REDACTED not in recorded:
        return recorded
    given = os.environ.get(variable)
    if given is None or without_password(given) != recorded:
        raise SweepError(
            f"{what} is {recorded}, and its password is not stored: set {variable} to the full URL"
        )
    return given
