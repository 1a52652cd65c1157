"""`python -m fsdet.data check …`; see `fsdet.data.check`."""

from __future__ import annotations

import logging
import sys

from rich.console import Console

from fsdet.command import ExitCode, run_command
from fsdet.data.check import check, parse


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR)  # the tables show the rest
    if arguments[:1] != ["check"]:
        stream = sys.stdout if {"-h", "--help"} & set(arguments[:1]) else sys.stderr
        stream.write("usage: python -m fsdet.data check --dataset NAME --data_root PATH …\n")
        return ExitCode.OK if stream is sys.stdout else ExitCode.MISTAKE
    return run_command(lambda: run_check(arguments[1:]))


def run_check(arguments: list[str]) -> int:
    """Check the dataset of the command line."""
    check(parse(arguments), Console(width=None if sys.stdout.isatty() else 120))
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
