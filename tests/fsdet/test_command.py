import ast
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
