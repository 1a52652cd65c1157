"""What is reckoned from one measured trial."""

from __future__ import annotations

import pytest
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st

from fsdet.config import TrainConfig
from sweeps.config import Resources
from sweeps.config.check import check_spec
from sweeps.resources.cost import (
    MAX_PER_CARD,
    WORKER_BYTES,
    TrialCost,
    costliest,
    estimate,
    most_runs,
    peak_card_bytes,
    share_of_card,
    sweep_seconds,
    trial_seconds,
    trials_on_a_card,
)
from sweeps.resources.cost_report import cost_lines, duration
from sweeps.resources.machine import Machine, check_machine
from sweeps.resources.probe import find_gpus, with_gpus, with_measured_gpus, with_shared_card
from sweeps.storage.folder import new_folder

GB = 10**9
MEASURED = TrialCost(
    import_seconds=6,
    startup_seconds=1,
    step_seconds=0.5,
    save_seconds=0.1,
    evaluation_seconds=4,
    final_seconds=9,
    host_bytes=GB,
)
sizes = st.integers(1, 200 * GB)


@given(sizes, sizes, st.floats(0.1, 500))
def test_trials_on_a_card_fit_into_memory_and_cores(need, total, cores):
    count = trials_on_a_card(need, total, cores)
    assert 1 <= count <= MAX_PER_CARD
    assert count == 1 or (count * need <= 0.9 * total and count <= cores)
    one_more_fits = (count + 1) * need <= 0.9 * total * (1 - 1e-9) and count + 1 <= cores
    assert not one_more_fits or count == MAX_PER_CARD


@given(st.integers(1, MAX_PER_CARD), st.integers(1, 16))
def test_shares_carry_just_as_many_trials(trials, cards):
    resources = Resources(cpus=0.001, gpus=share_of_card(trials))
    units = round(10_000 * resources.gpu_share)
    assert units / 10_000 == resources.gpu_share
    assert 10_000 // units == trials
    assert Machine(10_000, cards).capacity(resources) >= trials * cards


@given(sizes, st.floats(0, 1), st.floats(0, 1), st.floats(1, 3))
def test_a_process_takes_its_peak_and_what_torch_does_not_know(total, used, own, peak):
    reserved = int(used * own * total)
    free = total - int(used * total)
    most = int(reserved * peak)
    assert peak_card_bytes(free, total, reserved, most) == most + (total - free - reserved)


def test_whole_trial_is_the_sum_of_its_parts():
    config = TrainConfig(epochs=7, n_episodes=10, batch_size=4, gradient_accumulation=1)
    config = config.model_copy(update={"eval_interval": 3, "save_interval": 2})
    # 3 steps an epoch; evaluated after 3, 6 and 7; saved after 2, 4, 6 and 7
    seconds = 1 + 21 * 0.5 + 2 * 4 + 9 + 4 * 0.1
    assert trial_seconds(config, MEASURED) == pytest.approx(seconds)


def test_last_round_of_a_sweep_counts_whole():
    assert sweep_seconds(5, 2, 100, MEASURED) == 306
    assert sweep_seconds(5, 0, 100, MEASURED) == 506


def test_costliest_is_the_first_baseline_at_the_largest_sizes():
    sizes = {"batch_size": 2, "epochs": 2, "eval_interval": 3}
    spec = small_spec(
        space={
            "lr": {"low": 0.01, "high": 10},
            "batch_size": {"choices": [2, 8, 4]},
            "epochs": {"low": 2, "high": 5},
            "eval_interval": {"low": 1, "high": 3},
            "head_lr_mult": {"tie": "lr", "times": 2},
            "backbone_lr_mult": {"low": 0, "high": 3},
        },
        fixed={"n_episodes": 3},
        baselines={"by_hand": {**sizes, "lr": 0.5, "backbone_lr_mult": 0}},
    )
    check_spec(spec)
    config = costliest(spec)
    assert (config.batch_size, config.epochs, config.eval_interval) == (8, 5, 1)
    assert (config.lr, config.head_lr_mult, config.backbone_lr_mult) == (0.5, 1.0, 3.0)


def test_confirmation_is_counted_with_its_ablation():
    spec = small_spec(
        baselines={"a": {"lr": 1}, "b": {"lr": 2}}, confirm={"top_k": 3, "seeds": 4}, ablate=True
    )
    assert most_runs(spec) == (3 + 2 + 1) * 4
    cost = estimate(spec, MEASURED, at_once=2, host_free=10 * GB)
    one = (
        1 + 3 * 0.5 + 2 * 4 + 9 + 3 * 0.1
    )  # 3 epochs of one step, each evaluated, the last in full
    assert cost.confirmation == pytest.approx(6 + 12 * one)
    assert estimate(small_spec(), MEASURED, 2, 10 * GB).confirmation is None


def test_trials_that_do_not_fit_are_warned_of():
    spec = small_spec(trials=10)
    needed = 4 * (GB + WORKER_BYTES)
    roomy, tight = (estimate(spec, MEASURED, 4, free) for free in (needed, needed - 1))
    assert not any("warning" in line for line in cost_lines(spec, roomy))
    assert any("warning" in line and "max_concurrent" in line for line in cost_lines(spec, tight))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (59.6, "60 s"),
        (150, "2 min 30 s"),
        (599.9, "10 min 0 s"),
        (930, "16 min"),
        (9000, "2 h 30 min"),
        (180000, "2.1 days"),
    ],
)
def test_times_are_told_in_words(seconds, words):
    assert duration(seconds) == words


def test_auto_is_no_gpu_where_there_is_none():
    spec = small_spec(resources={"cpus": 1, "gpus": "auto"})
    assert spec.settings["device"] == "auto"
    check_machine(spec, Machine(2, 0))
    said: list[str] = []
    found = find_gpus(spec, Machine(2, 0), said.append)
    assert (found.resources.gpus, found.settings["device"], said) == (0, "cpu", [])
    assert Machine(2, 0).capacity(found.resources) == 2


def test_auto_shares_a_card_by_memory_and_cores():
    spec = small_spec(resources={"cpus": 2, "gpus": "auto"})
    one = TrialCost(**{**vars(MEASURED), "card_bytes": 11 * GB, "card_total": 80 * GB})
    assert with_shared_card(spec, Machine(64, 4), one).resources.gpus == 0.1666  # six by memory
    assert with_shared_card(spec, Machine(24, 4), one).resources.gpus == 0.3333  # three by cores
    assert with_shared_card(spec, Machine(24, 4), one).settings["device"] == "cuda"
    large = TrialCost(**{**vars(one), "card_bytes": 79 * GB})
    assert with_shared_card(spec, Machine(64, 4), large).resources.gpus == 1


def test_resumed_sweep_keeps_what_wwith_measured_gpus():
    auto = small_spec(resources={"cpus": 1, "gpus": "auto"})
    folder = new_folder("small")
    folder.save_spec(with_gpus(auto, 0.25))
    assert with_measured_gpus(auto, folder).resources.gpus == 0.25
    given = small_spec(resources={"cpus": 1, "gpus": 0.5})
    assert with_measured_gpus(given, folder) is given


def test_gpus_are_a_number_or_auto():
    for wrong in ("all", -1, None, True):
        with pytest.raises(ValueError, match="must be auto or a number of at least 0"):
            Resources.model_validate({"gpus": wrong})
    assert Resources.model_validate({"gpus": 0.5}).gpu_share == 0.5
