import ast
from pathlib import Path

import pytest

from fsdet.command import run_command
from fsdet.errors import CheckpointError, ConfigError, DataError, FsdetError

PACKAGE = Path(__file__).parents[2] / "fsdet"


@pytest.mark.parametrize("kind", [FsdetError, ConfigError, DataError, CheckpointError])
def test_a_mistake_becomes_one_line_and_2(capsys, kind):
    def call() -> int:
        raise kind("a.yaml: unknown key 'x'")

    assert run_command(call) == 2
    assert capsys.readouterr() == ("", "error: a.yaml: unknown key 'x'\n")


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
