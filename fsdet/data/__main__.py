"""`python -m fsdet.data check …`; see `fsdet.data.check`."""

from __future__ import annotations

import logging
import sys

from rich.console import Console

from fsdet.data.check import check, parse
from fsdet.errors import FsdetError

EXIT_MISTAKE = 2


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.ERROR)  # the tables say it
    if arguments[:1] != ["check"]:
        told = sys.stdout if {"-h", "--help"} & set(arguments[:1]) else sys.stderr
        told.write("usage: python -m fsdet.data check --dataset NAME --data_root PATH …\n")
        return 0 if told is sys.stdout else EXIT_MISTAKE
    try:
        check(parse(arguments[1:]), Console(width=None if sys.stdout.isatty() else 120))
    except FsdetError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
