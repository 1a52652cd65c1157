"""`python -m sweeps.ui`: the MLflow UI over what was logged, on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

from sweeps.config.sections import TrackingSpec
from sweeps.tracking import tracking_uri


def command(port: int) -> list[str]:
    """The `mlflow ui` that shows the store of MLFLOW_BACKEND_STORE_URI.

    The store is not an argument: everyone on the machine can read a command line, and it may hold a password.
    """
    return [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns when the server ends."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    uri = tracking_uri(TrackingSpec())
    if uri.startswith("http"):
        sys.stdout.write("the runs are on a server; open MLFLOW_TRACKING_URI in a browser\n")
        return 0
    try:
        variables = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
        return subprocess.call(command(options.port), env=variables)
    except KeyboardInterrupt:  # the usual way to end it
        return 0


if __name__ == "__main__":
    sys.exit(main())
