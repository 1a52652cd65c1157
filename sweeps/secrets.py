"""Keeps passwords and tokens out of everything that anyone may read."""

from __future__ import annotations

import os
import re

SECRETS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
"""Variables that MLflow reads and that nobody may see."""


def without_password(text: str) -> str:
    """`text` fit for a message: without what stands before the @ of a URL, tokens and passwords."""
    text = re.sub(r"//[^\s@]*@", "//…@", text)
    text = re.sub(r"(?i)\b(password|passwd|token|secret|api_?key)=[^&\s'\"]+", r"\1=…", text)
    for secret in filter(None, map(os.environ.get, SECRETS)):
        text = text.replace(secret, "…")
    return text
