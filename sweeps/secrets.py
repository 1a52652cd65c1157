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
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "DATABRICKS_TOKEN",
    "MYSQL_PWD",
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
HOST = re.compile(r"[^/?#]*")
NAME = re.compile(r"[^/:@]*")
NAMED = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|token|secret|credential|signature|(?:api|access)_?key)|sig)"
    r"=[^&\s'\"]+"
)
"""A secret among the options of a URL."""


def without_password(text: str) -> str:
    """`text` for a message: without user and password of a URL, tokens and passwords."""
    text = "".join(_without_user(word) for word in re.split(r"(\s+)", text))
    text = NAMED.sub(rf"\1={REDACTED}", text)
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, REDACTED)
    return text


def _without_user(word: str) -> str:
    """`word` without all before the host of a URL; a password may hold a slash or an @ of its own.

    No part is looked at twice, however long the word is.
    """
    parts, begin, last = [], 0, word.rfind("@")
    while (found := word.find("://", begin)) >= 0 and found < last:
        start = found + len("://")
        name = NAME.match(word, start)
        host = HOST.match(word, start)
        assert name is not None
        assert host is not None
        named = (
            word[name.end()] == ":"
        )  # of a user with a password: all to the last @ may be the password
        end = last if named else word.rfind("@", start, host.end())
        parts.append(word[begin:start])
        begin = start
        if end >= 0:
            parts.append(f"{REDACTED}@")
            begin = end + 1
    return "".join([*parts, word[begin:]])


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
