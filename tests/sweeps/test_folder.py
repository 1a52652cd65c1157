"""A sweep never goes into the folder of an earlier one."""

from __future__ import annotations

import pytest
from conftest import small_spec

from sweeps.errors import SweepError
from sweeps.folder import find_folder, new_folder


def test_name_of_the_yaml_gets_a_number() -> None:
    names = [new_folder("a", asked_for=False).name for _ in range(3)]
    assert names == ["a", "a-2", "a-3"]


def test_name_asked_for_must_be_free() -> None:
    new_folder("a", asked_for=True)
    with pytest.raises(SweepError, match=r"--name a: .* holds that sweep already"):
        new_folder("a", asked_for=True)


def test_base_name_finds_the_latest_by_number() -> None:
    for _ in range(11):
        new_folder("a", asked_for=False).save_spec(small_spec(name="a"))
    new_folder("ab", asked_for=False).save_spec(small_spec(name="ab"))
    assert find_folder("a").name == "a-11"
    assert find_folder("a-2").name == "a-2"


def test_unknown_name_gets_the_nearest() -> None:
    new_folder("stage2", asked_for=False).save_spec(small_spec())
    with pytest.raises(SweepError, match="did you mean 'stage2'"):
        find_folder("stage3")


def test_spec_comes_back_as_it_was_saved() -> None:
    folder = new_folder("a", asked_for=False)
    spec = small_spec(baselines={"b": {"lr": 1}}, space={"lr": {"choices": [1, 0.1]}})
    folder.save_spec(spec)
    assert folder.load_spec() == spec.with_source(str(folder.spec))
