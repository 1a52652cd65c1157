"""A store on another machine, asked whether it is there: MLflow itself would try for minutes."""

from __future__ import annotations

import requests
import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

SECONDS = 10
"""Given to a server to answer."""


def knock(uri: str) -> None:
    """Return if a server at `uri` answers, whatever it says; of a file there is nothing to ask.

    Raises:
        Exception: that of the library that could not reach it.
    """
    if uri.startswith(("http://", "https://")):
        requests.head(uri, timeout=SECONDS)
    elif uri.startswith("postgresql"):
        options = {"connect_timeout": SECONDS}
        engine = sqlalchemy.create_engine(make_url(uri), poolclass=NullPool, connect_args=options)
        engine.connect().close()
