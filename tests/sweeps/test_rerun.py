"""Which trial is run again, what is said of it, and how the command ends; a real re-run is in `test_main_job.py`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import small_spec
from session_parts import Driver, exploded, report_of

from fsdet.report import Explosion, Result
from sweeps import rerun
from sweeps.errors import SweepError
from sweeps.rerun import Source, compare, comparison_lines, find_source
from sweeps.states import State
from sweeps.storage.lookup import new_folder
from sweeps.study.location import begin_store

pytestmark = pytest.mark.usefixtures("in_own_folder")
EXPLOSION = Explosion("norm_ceiling", 7, "backbone", "norm above 1e4")


@pytest.fixture
def swept() -> None:
    """A sweep whose trial 1 is the best, and whose trial 2 exploded."""
    spec = small_spec(trials=3)
    folder = new_folder("small")
    store = begin_store(spec, folder)
    folder.save_spec(spec)
    driver = Driver(spec, store)
    for value in (0.1, 0.2, None):
        number = driver.start().number
        last = exploded(1) if value is None else report_of(3, value, "final", metrics={"a": value})
        driver.end(number, last)


def result(source: Source, explosion: Explosion | None = None) -> Result:
    metrics = {} if explosion else dict(source.trial.metrics)
    return Result(metrics, 9, explosion, None, Path("again"), source.trial.best_epoch)


def test_the_best_or_the_trial_of_a_number(swept):
    assert find_source("small").trial.number == 1
    assert find_source("small", number=0).trial.number == 0
    assert find_source("small", number=2).trial.state is State.INFEASIBLE
    with pytest.raises(SweepError, match=r"no trial 3 in this sweep, it has 0 to 2; .*--all"):
        find_source("small", number=3)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("flag", [[], ["--json"]])
def test_a_rerun_that_explodes_ends_like_the_trainer(swept, number, flag, monkeypatch, capsys):
    monkeypatch.setattr(rerun, "rerun", lambda source: result(source, EXPLOSION))
    assert rerun.main(["small", str(number), *flag]) == 3
    out = capsys.readouterr().out
    assert ("so did the trial: bang" in out) == (number == 2 and not flag)
    assert "step 7: norm above 1e4" in out


def test_equal_or_not_is_said_and_is_the_exit_code(swept, monkeypatch, capsys):
    source = find_source("small")
    source = replace(source, trial=replace(source.trial, metrics={"val/nAP50": 0.2}))
    found = compare(source, result(source))
    assert found.equal
    assert comparison_lines(found)[-2] == "equal to the last digit"
    other = compare(source, replace(result(source), metrics={"val/nAP50": 0.3}))
    assert not other.equal
    assert any("differs" in line for line in comparison_lines(other))


def test_a_trial_that_exploded_has_nothing_to_compare(swept):
    source = find_source("small", number=2)
    found = compare(source, result(source))
    assert found.metrics == {}
    assert comparison_lines(found)[0].startswith("the trial was infeasible, this run completed")
