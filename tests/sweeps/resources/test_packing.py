"""Trials side by side: real trainings on the CPU, which is shared as a card is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from pathlib import Path

import pytest
from test_mps import control
from test_probe import small_config

from fsdet.config import TrainConfig
from sweeps.errors import SweepError
from sweeps.resources import packing
from sweeps.resources.packing import (
    Packing,
    TrialsAtOnce,
    measure_packing,
    numbers_up_to,
    trials_at_once,
)

__all__ = ["control"]  # a fixture


@pytest.mark.slow
def test_trials_are_measured_alone_and_together(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "WINDOW", 2.0)
    said: list[str] = []
    config = small_config(tmp_path, cuda_graph="off")
    found = measure_packing(config, 2, said.append, with_mps=False)
    assert found.rates.keys() == {(1, False), (2, False)}
    assert min(found.rates.values()) > 0
    assert found.alone == found.rates[1, False]
    assert found.best in found.rates
    assert [line.split(" at once")[0].strip() for line in said] == ["1 trial", "2 trials"]
    assert not (tmp_path / "untouched").exists()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.usefixtures("control")
def test_under_mps_several_trials_are_measured(tmp_path, monkeypatch):
    """Real trainings; the daemon is a stand-in."""
    monkeypatch.setattr(packing, "WINDOW", 1.0)
    found = measure_packing(small_config(tmp_path), 2, print)
    assert found.rates.keys() == {(1, False), (2, False), (2, True)}
    assert list(found.clients) == [101, 102]
    assert found.lost == ""


@pytest.mark.slow
def test_a_number_of_trials_of_which_one_dies_is_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "WINDOW", 1.0)
    with trials_at_once(small_config(tmp_path), 2, {}) as trials:
        process, _ = trials.started[1]
        process.kill()
        process.join()
        found, lost = packing._rates(trials, [1, 2], "", print)
    assert found.keys() == {1}
    assert found[1] > 0
    assert lost.startswith(
        "2 at once are too many (a trial that shared the card ended: its process"
    )


def test_mps_that_does_not_start_leaves_what_was_measured_without(monkeypatch):
    def trials(*_: object) -> contextlib.nullcontext[TrialsAtOnce]:
        return contextlib.nullcontext(TrialsAtOnce([]))

    monkeypatch.setattr(packing, "trials_at_once", trials)
    monkeypatch.setattr(packing, "_rates", lambda *_: ({1: 10.0, 2: 18.0}, ""))
    monkeypatch.setenv("PATH", "")
    found = measure_packing(TrainConfig(), 2, print, with_mps=True)
    assert found.best == (2, False)
    assert found.lost.startswith("MPS could not be used (nvidia-cuda-mps-control cannot be started")


@pytest.mark.slow
def test_a_trial_that_cannot_start_is_one_line(tmp_path):
    with pytest.raises(SweepError, match=r"^the trial that is measured failed: .*nowhere\.pt"):
        measure_packing(small_config(tmp_path, resume=Path("nowhere.pt")), 2, print)
    assert multiprocessing.active_children() == []


def test_steps_are_counted_within_the_window_only(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(packing.time, "monotonic", lambda: next(clock))
    assert packing._count_steps(lambda: None, 5, 12) == 7


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({(1, False): 10, (2, False): 19, (4, False): 19.5}, (2, False)),  # four are hardly faster
        ({(1, False): 10, (2, False): 9}, (1, False)),
        ({(1, False): 18, (8, False): 105, (8, True): 157}, (8, True)),
        ({(1, False): 18, (8, False): 105, (8, True): 107}, (8, False)),
        ({(1, False): 18, (8, False): 105, (4, True): 104, (8, True): 106}, (4, True)),
    ],
)
def test_the_fewest_that_nearly_give_the_most_are_best(rates, best):
    found = Packing(rates[1, False], rates)
    assert found.best == best
    number, mps = best
    assert found.describe().startswith(f"{number} on a card{' with MPS' if mps else ''}, ")


@pytest.mark.parametrize(
    ("most", "numbers"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])]
)
def test_numbers_double_up_to_the_most(most, numbers):
    assert numbers_up_to(most) == numbers


@pytest.mark.gpu
def test_on_a_gpu_several_trials_take_more_steps_than_one(tmp_path):
    config = small_config(tmp_path, device="cuda", num_workers=0)
    found = measure_packing(config, min(8, os.cpu_count() or 1), print)
    assert found.rates[found.best] > found.alone
    if any(under for _, under in found.rates):
        assert found.clients
