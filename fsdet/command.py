"""What every command line of `fsdet` makes of a mistake and of Ctrl-C: one line on the error stream, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable

from fsdet.errors import FsdetError

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130


def run_command(call: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Call the body of a command line.

    Args:
        call: parses, works, prints; returns the exit code.
        interrupted: what is told after Ctrl-C.

    Returns:
        the exit code: that of `call`, 2 after an `FsdetError`, 130 after Ctrl-C.
    """
    try:
        return call()
    except FsdetError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return EXIT_INTERRUPTED
