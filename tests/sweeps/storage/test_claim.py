"""Two processes that start sweeps of one name together get a folder each."""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import small_spec

from sweeps.errors import SweepError
from sweeps.storage.lookup import new_folder

CHOOSE = """
import sys
from sweeps.storage.lookup import new_folder
print(new_folder("a", numbered=True).name, flush=True)
sys.stdin.read()
"""


def chooser() -> subprocess.Popen[str]:
    """A process that has chosen a folder for its sweep and not begun it; it ends when its input is closed."""
    return subprocess.Popen(
        [sys.executable, "-c", CHOOSE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_folder_that_another_process_has_just_chosen_is_not_chosen_again():
    with chooser() as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "a\n"
        assert new_folder("a", numbered=True).name == "a-2"
        with pytest.raises(SweepError, match="sweep a: "):
            new_folder("a")
    assert other.returncode == 0
    assert new_folder("a").name == "a"  # its process died before the sweep began


def test_processes_that_start_together_choose_folders_of_their_own():
    others = [chooser() for _ in range(3)]
    chosen = {other.stdout.readline().strip() for other in others if other.stdout is not None}
    assert chosen == {"a", "a-2", "a-3"}
    for other in others:
        other.communicate()


def test_own_claim_holds_until_the_sweep_begins():
    folder = new_folder("a")
    assert new_folder("a") == folder
    folder.save_spec(small_spec())
    with pytest.raises(SweepError, match="holds one already"):
        new_folder("a")


def test_folder_that_cannot_be_created_is_one_line(in_own_folder):
    (in_own_folder / "mlruns").write_text("a file")
    with pytest.raises(SweepError, match="cannot be created") as caught:
        new_folder("a")
    assert "\n" not in str(caught.value)
