"""What all command lines share: exit codes, and how a wrong flag or an error becomes a line on the error stream."""

from __future__ import annotations

import argparse
import errno
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from enum import IntEnum
from typing import Any, NoReturn, TypeVar

from fsdet.errors import DISK_FULL, ConfigError, FsdetError, cut, nearest, shown

Flags = TypeVar("Flags")


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


NO_ROOM = "the disk is full; make room, then run this again, with --resume if it had begun"
FILE_ERRORS = {
    errno.ENAMETOOLONG: (ExitCode.MISTAKE, "the name is too long; check the path"),
    **dict.fromkeys(DISK_FULL, (ExitCode.NOTHING_FOUND, NO_ROOM)),
}
"""Number of an error of the system that any command can meet at any file -> exit code, and what to do."""


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
    mistakes: tuple[type[Exception], ...] = (),
    redact: Callable[[str], str] = str,
) -> int:
    """Call the body of a command line; a mistake of the user or Ctrl-C ends it without a traceback.

    Args:
        call: parses, works, prints; returns the exit code.
        interrupted: printed after Ctrl-C.
        mistakes: exceptions besides `FsdetError` whose message is for the user, one `error:` for each of its lines.
        redact: applied to every message before it is printed, to remove secrets.

    Returns:
        the exit code of `call`, or that of the mistake or interruption.
    """
    open_output()
    told: tuple[type[Exception], ...] = (FsdetError, *mistakes)
    try:
        return call()
    except told as error:
        for line in redact(str(error)).splitlines():
            sys.stderr.write(f"error: {line}\n")
        return ExitCode.MISTAKE
    except OSError as error:
        if error.errno not in FILE_ERRORS:
            raise
        code, said = FILE_ERRORS[error.errno]
        place = f"{cut(str(error.filename))}: " if error.filename is not None else ""
        sys.stderr.write(f"error: {place}{said}\n")
        return code
    except KeyboardInterrupt:
        sys.stderr.write(f"{redact(interrupted)}\n")
        return ExitCode.INTERRUPTED
    finally:
        sys.stdout.flush()


class FlagParser(argparse.ArgumentParser):
    """Raises a `ConfigError` where argparse would print its own words and exit."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found.

        Raises:
            ConfigError: always.
        """
        known = re.findall(r"--(\w+)", self.format_usage())
        raise ConfigError(flag_mistake(message, known, self.prog)) from None


def read_flags(
    kind: type[Flags], arguments: Sequence[str], prog: str, description: str | None = None
) -> Flags:
    """The flags of a command as a dataclass.

    Args:
        kind: the dataclass; its fields are the flags, their docstrings the help.
        arguments: of the command line.
        prog: the command, for the help.
        description: printed above the list of flags; None for the docstring of `kind`.

    Raises:
        ConfigError: a flag is unknown or missing, or has a value of another type.
        SystemExit: with code 0, after `--help`.
    """
    import tyro  # takes a second to load

    told = io.StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(
                kind, args=arguments, prog=prog, description=description, use_underscores=True
            )
    except SystemExit as end:
        if not end.code:
            raise
        known = inspect.signature(kind).parameters
        raise ConfigError(flag_mistake(_text_in(told.getvalue()), known, prog)) from None


RULER = "─"
"""Between two parts of what tyro says."""
FLAG_RULES = {
    r"[Uu]nrecognized (?:arguments|options): (?P<all>.*?)(?: ─ |$)": "no such flag",
    r"(?:argument|Error parsing) (?P<flag>\S+): .*?\bint\b.*?: (?P<value>'.*?')": "must be a whole number",
    r"Error parsing (?P<flag>\S+): .*? float: (?P<value>'.*?')": "must be a number",
    r"Error parsing (?P<flag>\S+): Could not parse arguments \[(?P<value>.*?)\]": "has values of another type",
    r"argument (?P<flag>\S+): invalid choice: (?P<value>.*?) \(choose from (?P<rule>.*)\)": "must be one of {rule}",
    r"invalid choice (?P<value>'.*?') for argument '(?P<flag>.*?)'\. .*?\((?P<rule>.*?)\)": "must be one of {rule}",
    r"argument (?P<flag>\S+): ignored explicit argument (?P<value>.*)": "takes no value",
    r"argument (?P<flag>\S+): expected one argument": "needs a value",
    r"Missing value for argument '(?P<flag>.*?)'\. Expected (?P<rule>\d+)": "needs {rule} value(s)",
    r"the following arguments are required: (?P<flag>.*)": "must be given",
    r"Missing from .*?: (?P<flag>--\w+)": "must be given",
}
"""What argparse and tyro say of a flag -> the rule it is against."""


def flag_mistake(text: str, known: Iterable[str], prog: str) -> str:
    """One line: flag, rule, value and cure.

    Args:
        text: what argparse or tyro says.
        known: names of all flags.
        prog: the command.
    """
    cure = f"; `{prog} --help` lists all flags"
    for pattern, rule in FLAG_RULES.items():
        if (found := re.match(pattern, text, re.DOTALL)) is None:
            continue
        parts = found.groupdict()
        if "all" in parts:
            return _unknown(parts["all"], known, rule) + cure
        value = f", but got {cut(parts['value'])}" if "value" in parts else ""
        return f"{_plain(parts['flag'])}: {rule.format(**parts)}{value}{cure}"
    return f"{_plain(text)}{cure}"


def _unknown(all_of_them: str, known: Iterable[str], rule: str) -> str:
    """The first flag that is unknown, else the first argument too many."""
    words = re.split(r",? ", all_of_them)
    flag = next((word for word in words if word.startswith("-")), None)
    if flag is None:
        return f"{_plain(words[0])}: one argument too many"
    name = flag.lstrip("-").partition("=")[0]
    return f"{_plain(flag)}: {rule}{nearest(name, known)}"


def _plain(text: str) -> str:
    """`text` cut, on one line, without control characters."""
    return shown(text)[1:-1]


def _text_in(box: str) -> str:
    """What tyro says below a title: the mistake with the flag's own text; an unknown flag goes before a missing one.

    Without UTF-8 tyro draws no box, only a line of hyphens below the title.
    """
    lines = (line.strip("│ ") for line in box.splitlines())
    parts = (RULER if line[:1] in "╭╰" or not line.strip("─-") else line for line in lines)
    text = " ".join(parts).partition(RULER)[2].strip()
    return text[max(0, text.find("Unrecognized")) :]
