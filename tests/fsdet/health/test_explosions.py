"""Every rule of an explosion against real runs: those of the corpus of `benchmarks/stability.py`."""

from pathlib import Path

import pytest
from stability import FAULTY, FIRST_SEED, FROZEN, HEALTHY, STAGE_2, Case, run_case

ROOT = Path(__file__).parents[3]
FEWER = {"train_scenes": 256, "resume": ROOT / STAGE_2["resume"]}


def settings(case: Case) -> dict[str, object]:
    return FEWER if case.settings["resume"] else {"train_scenes": 256}


@pytest.mark.slow
@pytest.mark.parametrize("case", FAULTY, ids=lambda case: case.name)
def test_each_rule_fires_on_a_run_that_really_diverges(case, small_data):
    explosion, _ = run_case(case, FIRST_SEED, **settings(case))
    assert explosion is not None
    assert explosion.reason == case.rule
    assert explosion.step > case.at


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 10))
def test_all_rules_stay_silent_on_healthy_runs(seed, small_data):
    case = HEALTHY[seed % len(HEALTHY)]
    explosion, norms = run_case(case, seed, steps=40, **settings(case))
    assert explosion is None
    assert len(norms) == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"cls_weight": 5.0},
        {"supcon_weight": 5.0},
        {"image_size": 64, "n_way": 2},
        {"image_size": 64, "n_way": 2, "batch_size": 4},
        {"bbox_weight": 15.0, "cls_weight": 0.1, "supcon_weight": 0.0, "image_size": 64},
    ],
    ids=str,
)
def test_weights_that_do_not_move_never_explode(settings, small_data):
    """Other losses and images than those of the checkpoint have other norms from the first step."""
    case = Case("frozen", None, FROZEN | settings)
    explosion, norms = run_case(case, FIRST_SEED, steps=12, **FEWER)
    assert explosion is None
    assert len(norms) == 12


def test_every_rule_has_its_run():
    rules = {
        "non_finite",
        "norm_ceiling",
        "norm_ratio",
        "loss_divergence",
        "loss_collapse",
        "silent_death",
    }
    assert {case.rule for case in FAULTY} == rules
