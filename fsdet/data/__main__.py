"""`python -m fsdet.data check …`; see `fsdet.data.check`."""

from __future__ import annotations

import logging
import sys

from rich.console import Console

from fsdet.command import ExitCode, run_command
from fsdet.data.check import check, parse
from fsdet.errors import ConfigError, shown


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR)  # the tables show the rest
    return run_command(lambda: run_check(arguments))


def run_check(arguments: list[str]) -> int:
    """Check the dataset of the command line."""
    if arguments[:1] in (["-h"], ["--help"]):
        print("usage: python -m fsdet.data check --dataset NAME --data_root PATH …")
        return ExitCode.OK
    if arguments[:1] != ["check"]:
        got = f", but got {shown(arguments[0])}" if arguments else ""
        raise ConfigError(
            f"python -m fsdet.data: the first argument must be check{got}; write `python -m fsdet.data check "
            "--dataset NAME --data_root PATH …`"
        )
    check(parse(arguments[1:]), Console(width=None if sys.stdout.isatty() else 120))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
