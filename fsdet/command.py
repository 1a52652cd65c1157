"""What every command line of `fsdet` makes of a mistake and of Ctrl-C: one line on the error stream, no traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum

from fsdet.errors import FsdetError

EXIT_MISTAKE, EXIT_INTERRUPTED = 2, 130


class ExitCode(IntEnum):
    """Exit codes of all commands."""

    OK = 0
    NOTHING_FOUND = 1
    MISTAKE = 2
    EXPLODED = 3
    TOO_MANY_FAILURES = 4
    STUDY_LOST = 5
    INTERRUPTED = 130
    TERMINATED = 143


def run_command(
    call: Callable[[], int],
    interrupted: str = "interrupted",
    mistakes: tuple[type[Exception], ...] = (FsdetError,),
    redact: Callable[[str], str] = str,
) -> int:
    """Call the body of a command line.

    Args:
        call: parses, works, prints; returns the exit code.
        interrupted: what is told after Ctrl-C.
        mistakes: exceptions whose message is complete; each of its lines is printed.
        redact: removes secrets from a line.

    Returns:
        the exit code: that of `call`, 2 after a mistake, 130 after Ctrl-C.
    """
    try:
        return call()
    except mistakes as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"error: {redact(line)}\n")
        return ExitCode.MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return ExitCode.INTERRUPTED
