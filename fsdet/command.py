"""What all command lines share: their exit codes, and how an error becomes lines on the error stream."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from fsdet.errors import FsdetError


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    """Everything that was asked for was done."""
    NOTHING_FOUND = 1
    """Not the result that was asked for: inputs were skipped, no trial of a sweep completed, a re-run differs."""
    MISTAKE = 2
    """A flag, a file or a setting cannot be used; the message says which and how to fix it."""
    EXPLODED = 3
    """The run exploded, or its health report has a failed line."""
    TOO_MANY_FAILURES = 4
    """More trials of a sweep crashed than it allows."""
    STUDY_LOST = 5
    """The study of a sweep can no longer be written."""
    WRONG_SETTINGS = 6
    """A trial of a sweep did not train with the settings that were suggested for it."""
    INTERRUPTED = 130
    """Ctrl-C (128 + SIGINT)."""
    TERMINATED = 143
    """SIGTERM (128 + 15)."""


class Pipe(io.FileIO):
    """Standard output whose reader may stop reading (`| head`): what is written after that is dropped.

    The command itself goes on: a sweep or a training is not ended by a pager.
    """

    def write(self, data: Any) -> int:
        """Write bytes, or drop them."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return len(data)


def open_output() -> None:
    """Let standard output outlive its reader, and replace characters that its encoding does not have."""
    out = sys.stdout
    if out is None:  # closed: the command was started with `>&-`
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    elif out is sys.__stdout__ and isinstance(
        out, io.TextIOWrapper
    ):  # the caller has not replaced it
        out.flush()
        raw = io.BufferedWriter(Pipe(out.fileno(), "w", closefd=False))
        sys.stdout = io.TextIOWrapper(raw, out.encoding, errors="replace", line_buffering=True)


def run_command(
    call: Callable[[], int],
    interrupted: str = "interrupted",
    mistakes: tuple[type[Exception], ...] = (FsdetError,),
    redact: Callable[[str], str] = str,
) -> int:
    """Call the body of a command line; a mistake of the user or Ctrl-C ends it without a traceback.

    Args:
        call: parses, works, prints; returns the exit code.
        interrupted: printed after Ctrl-C.
        mistakes: exceptions whose message is for the user, one `error:` for each of its lines.
        redact: applied to every message before it is printed, to remove secrets.

    Returns:
        the exit code of `call`, or that of the mistake or interruption.
    """
    open_output()
    try:
        return call()
    except mistakes as error:
        for line in redact(str(error)).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return ExitCode.MISTAKE
    except KeyboardInterrupt:
        sys.stderr.write(f"{redact(interrupted)}\n")
        return ExitCode.INTERRUPTED
    finally:
        sys.stdout.flush()
