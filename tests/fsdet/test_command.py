import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fsdet.command import ExitCode, run_command
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
    assert [int(code) for code in ExitCode] == [0, 1, 2, 3, 4, 5, 130, 143]


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
