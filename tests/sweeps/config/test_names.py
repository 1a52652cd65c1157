"""A name becomes a folder: none leads out of its parent."""

from __future__ import annotations

import pytest
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sweeps.best import main as best
from sweeps.config.names import LONGEST, checked_name
from sweeps.report.__main__ import main as report
from sweeps.rerun import main as rerun
from sweeps.sync import main as sync

WRONG = [
    "../../x",
    "/x",
    "..",
    "a/b",
    "",
    ".hidden",
    "-flag",
    "a b",
    "a\n",
    "a?b",
    "a#b",
    "a%20b",
    "ä",
    "a\0",
    "a" * (LONGEST + 1),
]


@pytest.mark.parametrize("name", WRONG)
def test_name_that_could_lead_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="must be 1 to 100 letters"):
        checked_name(name)
    for wrong in (
        {"name": name},
        {"tracking": {"experiment": name}},
        {"warm_start": name, "sampler": {"name": "tpe"}},
    ):
        with pytest.raises(ValidationError, match="must be 1 to 100 letters"):
            small_spec(**wrong)


@given(st.text(max_size=120))
def test_every_accepted_name_is_a_child_of_its_parent(name):
    accepted = True
    try:
        checked_name(name)
    except ValueError:
        accepted = False
    odd = not name or not name.isascii() or name.startswith((".", "-"))
    assert not (accepted and (odd or set(name) & set("/\\?#% \n\0")))


@pytest.mark.parametrize("command", [best, report, rerun, sync])
def test_commands_refuse_a_path_as_a_name(command, in_own_folder, capsys):
    outside = in_own_folder / "x"
    outside.mkdir()
    (outside / "sweep.yaml").write_text("name: x\nspace: {lr: {low: 1, high: 2}}\n")
    before = sorted(in_own_folder.rglob("*"))
    assert command(["../../x"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "the name of a sweep must be 1 to 100 letters" in told
    assert sorted(in_own_folder.rglob("*")) == before
