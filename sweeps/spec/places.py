"""Where a sweep keeps what several machines must see, as its YAML says it."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import Field, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sweeps.secrets import holds_secret
from sweeps.spec.parameter import Part

STUDY_VARIABLE = "OPTUNA_STORAGE"
"""Optuna's own variable for the URL of its storage."""
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class TrackingSpec(Part):
    """Where MLflow keeps the runs."""

    uri: str | None = None
    """Tracking store; None takes MLFLOW_TRACKING_URI, else mlruns/mlflow.db."""
    experiment: str = Field(default="sweeps", min_length=1)
    """Experiment that the runs go to."""


class StorageSpec(Part):
    """Where the sweep's files and its study are."""

    path: str | None = None
    """Folder that all machines share, or a URL of fsspec (s3://…, gs://…, file://…); None for
    mlruns/sweeps of the working directory. Credentials for a URL come from the environment."""
    study: str | None = None
    """URL of Optuna's storage (postgresql://…); None takes OPTUNA_STORAGE, else a file in the
    sweep's folder. Give a password by the variable: others can read a YAML."""

    @field_validator("path")
    @classmethod
    def _open(cls, path: str | None) -> str | None:
        if path is None:
            return None
        if not path.strip():
            raise ValueError("must name a folder or a URL; remove it for mlruns/sweeps")
        if not is_url(path):
            return str(Path(path).expanduser().absolute())
        if holds_secret(path):
            raise ValueError(
                "must hold no password or token, since every trial is told it; give credentials to "
                "every node by the environment, as docs/cluster.md tells"
            )
        return path.rstrip("/")

    @field_validator("study")
    @classmethod
    def _database(cls, study: str | None) -> str | None:
        if study is None:
            return None
        try:
            database = make_url(study)
        except ArgumentError:
            raise ValueError(
                "must be a URL of a database, as in postgresql://user@host/name; correct it"
            ) from None
        if database.drivername.startswith("sqlite") and database.database:
            absolute = str(Path(database.database).absolute())
            return database.set(database=absolute).render_as_string(hide_password=False)
        return study


def is_url(path: str) -> bool:
    """Whether a storage path is one that fsspec opens."""
    return URL.match(path) is not None
