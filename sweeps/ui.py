"""`python -m sweeps.ui`: the MLflow UI over what was logged, on 127.0.0.1 only."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from sweeps.spec.places import TrackingSpec
from sweeps.tracking import tracking_uri


def command(uri: str, port: int) -> list[str]:
    """The `mlflow ui` that shows `uri`."""
    server = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    return [*server, "--backend-store-uri", uri]


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns when the server ends."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.ui", description=__doc__)
    parser.add_argument("--port", type=int, default=5000)
    options = parser.parse_args(arguments)
    uri = tracking_uri(TrackingSpec())
    if uri.startswith("http"):
        sys.stdout.write("the runs are on a server; open MLFLOW_TRACKING_URI in a browser\n")
        return 0
    words = command(uri, options.port)
    try:
        return subprocess.call(words)
    except KeyboardInterrupt:  # the usual way to end it
        return 0


if __name__ == "__main__":
    sys.exit(main())
