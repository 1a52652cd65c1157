"""Imports MLflow with telemetry and log output disabled; the other modules import it from here."""

from __future__ import annotations

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
# the write queue asks again itself, and for longer
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
# MLflow would print the URL of a run together with the server's password
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

for _name in ("mlflow", "alembic", "urllib3.connectionpool"):
    logging.getLogger(_name).setLevel(logging.ERROR)

__all__ = [
    "Dataset",
    "DatasetInput",
    "Metric",
    "MlflowClient",
    "MlflowException",
    "Param",
    "RunTag",
]
