import ast
import errno
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from fsdet.command import ExitCode, FlagParser, read_flags, run_command
from fsdet.errors import CheckpointError, ConfigError, DataError, FsdetError

PACKAGE = Path(__file__).parents[2] / "fsdet"


@pytest.mark.parametrize("kind", [FsdetError, ConfigError, DataError, CheckpointError])
def test_a_mistake_becomes_one_line_and_2(capsys, kind):
    def call() -> int:
        raise kind("a.yaml: unknown key 'x'")

    assert run_command(call) == 2
    assert capsys.readouterr() == ("", "error: a.yaml: unknown key 'x'\n")


def test_every_line_of_a_mistake_is_an_error(capsys):
    def call() -> int:
        raise ConfigError("a.yaml: unknown key 'x'\na.yaml: unknown key 'y'")

    assert run_command(call) == ExitCode.MISTAKE
    told = capsys.readouterr().err
    assert told == "error: a.yaml: unknown key 'x'\nerror: a.yaml: unknown key 'y'\n"


def test_a_path_that_no_file_system_has_is_one_line_and_other_errors_are_ours(capsys):
    assert run_command(lambda: int(Path("x" * 5000).is_file())) == ExitCode.MISTAKE
    told = f"error: {'x' * 199}…: the name is too long; check the path\n"
    assert capsys.readouterr() == ("", told)
    with pytest.raises(FileNotFoundError):
        run_command(lambda: len(Path("nowhere").read_text()))


def test_other_exceptions_can_be_mistakes_and_secrets_are_removed(capsys):
    def call() -> int:
        raise OSError("cannot connect to postgresql://me:secret@host")

    def redact(text: str) -> str:
        return text.replace("secret", "***")

    assert run_command(call, mistakes=(OSError,), redact=redact) == ExitCode.MISTAKE
    assert capsys.readouterr().err == "error: cannot connect to postgresql://me:***@host\n"
    with pytest.raises(OSError, match="secret"):
        run_command(call, redact=redact)


def test_exit_codes_are_those_of_the_documentation():
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 6, 130, 143]


def test_ctrl_c_becomes_a_line_and_130(capsys):
    def call() -> int:
        raise KeyboardInterrupt

    assert run_command(call, "interrupted; go on with --resume") == 130
    assert capsys.readouterr() == ("", "interrupted; go on with --resume\n")


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command(lambda: 1 // 0)


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_exit_code_is_that_of_the_call(capsys, code):
    assert run_command(lambda: code) == code
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "name", ["train", "evaluate", "predict", "export", "health/__main__", "data/__main__"]
)
def test_every_command_ends_in_the_same_way(name):
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    called = {node.func.id for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    caught = {
        node.type.id
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name)
    }
    assert "run_command" in called
    assert not caught & {"FsdetError", "KeyboardInterrupt"}


PRINTS = """
import sys, time
from fsdet.command import run_command
def call():
    for number in range(20000):
        print("line ±", number)
    open(sys.argv[1], "w").write("done")
    return 3
sys.exit(run_command(call))
"""


@pytest.mark.parametrize("reader", ["| head -1", ">&-"])
def test_a_closed_pipe_neither_ends_the_command_nor_prints_a_traceback(tmp_path, reader):
    line = f"{shlex.quote(sys.executable)} -c {shlex.quote(PRINTS)} {tmp_path / 'end'} {reader}"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert (tmp_path / "end").read_text() == "done"
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout in ("line ± 0\n", "")


def test_characters_that_the_encoding_does_not_have_are_replaced(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(tmp_path / "end")],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        cwd=PACKAGE.parent,
    )
    assert done.stdout.startswith("line ? 0\n")


@dataclass(frozen=True)
class Flags:
    """A command with a flag of each kind."""

    checkpoint: Path
    epochs: int = 1
    lr: float | None = None
    split: Literal["val", "test"] = "val"
    band: tuple[float, float] = (0.0, 1.0)
    quiet: bool = False


def by_tyro(arguments: list[str]) -> object:
    return read_flags(Flags, arguments, "python -m x")


def by_argparse(arguments: list[str]) -> object:
    parser = FlagParser("python -m x")
    parser.add_argument("name")
    parser.add_argument("number", nargs="?", type=int)
    parser.add_argument("--port", type=int)
    parser.add_argument("--kind", choices=("a", "b"))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


GIVEN = ["--checkpoint", "x"]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_what_is_said_of_a_flag_does_not_depend_on_the_encoding(tmp_path, monkeypatch, encoding):
    """tyro draws another box."""
    with (tmp_path / "out").open("w", encoding=encoding) as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(ConfigError, match="--zzz: no such flag; `python -m x --help`"):
            by_tyro(["--zzz", "1"])


@pytest.mark.parametrize(
    ("read", "arguments", "told"),
    [
        (by_tyro, [], "--checkpoint: must be given"),
        (by_tyro, ["--chekpoint", "x"], "--chekpoint: no such flag; did you mean 'checkpoint'?"),
        (by_tyro, [*GIVEN, "--epochs", "x"], "--epochs: must be a whole number, but got 'x'"),
        (by_tyro, [*GIVEN, "--epochs"], "--epochs: needs 1 value(s)"),
        (by_tyro, [*GIVEN, "--lr", "x"], "--lr: must be a number, but got 'x'"),
        (by_tyro, [*GIVEN, "--split", "x"], "--split: must be one of 'val', 'test', but got 'x'"),
        (by_tyro, [*GIVEN, "--band", "1"], "--band: needs 2 value(s)"),
        (by_tyro, [*GIVEN, "--band", "a", "b"], "--band: has values of another type, but got 'a', 'b'"),
        (by_tyro, [*GIVEN, "--quiet", "maybe"], "maybe: one argument too many"),
        (by_tyro, [*GIVEN, "--\x1b[31m\n", "1"], "--\\x1b[31m: no such flag"),
        (by_argparse, [], "name: must be given"),
        (by_argparse, ["x", "--prot", "1"], "--prot: no such flag; did you mean 'port'?"),
        (by_argparse, ["x", "--bad=1"], "--bad=1: no such flag"),
        (by_argparse, ["x", "--port", "y"], "--port: must be a whole number, but got 'y'"),
        (by_argparse, ["x", "--port"], "--port: needs a value"),
        (by_argparse, ["x", "y"], "number: must be a whole number, but got 'y'"),
        (by_argparse, ["x", "1", "2"], "2: one argument too many"),
        (by_argparse, ["x", "--kind", "c"], "--kind: must be one of 'a', 'b', but got 'c'"),
        (by_argparse, ["x", "--json=3"], "--json: takes no value, but got '3'"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line_with_rule_value_and_cure(capsys, read, arguments, told):
    assert run_command(lambda: bool(read(arguments))) == ExitCode.MISTAKE
    cure = "; `python -m x --help` lists all flags"
    assert capsys.readouterr() == ("", f"error: {told}{cure}\n")


def test_what_is_not_foreseen_of_a_flag_is_still_one_line(capsys):
    assert run_command(lambda: FlagParser("x").error("words\nof " + "x" * 9999)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: words\\nof xxx")
    assert len(line) < 300


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize(("name", "place"), [("runs/a.json", "runs/a.json: "), (None, "")])
def test_a_full_disk_is_one_line_whichever_file_meets_it(capsys, number, name, place):
    def call() -> int:
        raise OSError(number, os.strerror(number), name)

    assert run_command(call) == ExitCode.NOTHING_FOUND
    said = "the disk is full; make room, then run this again, with --resume if it had begun"
    assert capsys.readouterr().err == f"error: {place}{said}\n"
