"""What is reckoned from one measured trial."""

from __future__ import annotations

import pytest
from conftest import small_spec
from hypothesis import given
from hypothesis import strategies as st
from measured_costs import GB, MEASURED

from fsdet.config import TrainConfig
from sweeps.config import Resources
from sweeps.config.check import check_spec
from sweeps.resources.cost import (
    MAX_PER_CARD,
    costliest,
    estimate,
    most_runs,
    peak_card_bytes,
    share_of_card,
    sweep_seconds,
    trial_seconds,
    trials_on_a_card,
)
from sweeps.resources.machine import Machine

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
    resources = Resources(cpus=0.01, gpus=share_of_card(trials))
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
