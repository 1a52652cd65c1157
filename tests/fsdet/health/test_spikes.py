import json
import math

import numpy as np
import pytest

from fsdet.health.spikes import DEVIATIONS, MIN_STEPS, WINDOW, SpikeScores

CHANCE = np.random.default_rng(0)


def scores(norms: list[float], losses: list[float]) -> list[dict[str, float]]:
    found = SpikeScores()
    pairs = zip(norms, losses, strict=True)
    return [found.update({"grad/norm": n, "train/loss/total": x}) for n, x in pairs]


def by_hand(values: list[float]) -> float:
    """The definition, value by value."""
    count = 0
    for number, value in enumerate(values):
        before = values[max(0, number - WINDOW) : number]
        if number >= MIN_STEPS:
            count += abs(value - np.mean(before)) >= DEVIATIONS * np.std(before)
    return count / len(values)


def test_the_score_is_the_share_of_values_far_outside_the_window_before():
    norms = list(CHANCE.gamma(4, 2, 400))
    losses = list(CHANCE.normal(5, 0.1, 400))
    for step in (30, 31, 200, 350):
        norms[step] *= 40
    losses[100] = 1.0  # downwards counts too
    last = scores(norms, losses)[-1]
    assert last == {"grad/spike_score": by_hand(norms), "train/spike_score": by_hand(losses)}
    assert last["grad/spike_score"] >= 3 / 400
    assert last["train/spike_score"] == 1 / 400


def test_the_scale_of_a_loss_does_not_matter():
    """So trials with other weights of the losses can be compared."""
    losses = [*CHANCE.normal(5, 0.1, 60), 9.0]
    other = [1e4 * x for x in losses]
    one, two = (scores([8.0] * 61, series)[-1] for series in (losses, other))
    assert one == two
    assert one["train/spike_score"] == 1 / 61


def test_a_value_that_is_not_finite_is_left_out():
    norms = [*CHANCE.normal(8, 1, 50), 900.0, *CHANCE.normal(8, 1, 50)]
    broken = [math.inf, *norms[:60], math.nan, *norms[60:]]
    assert scores(norms, norms)[-1] == scores(broken, broken)[-1]
    assert scores(norms, norms)[-1]["grad/spike_score"] == 1 / 101
    assert scores([math.nan], [math.nan])[-1] == {"grad/spike_score": 0, "train/spike_score": 0}


def test_the_first_steps_are_never_spikes():
    assert scores([1.0, 1e6] * (MIN_STEPS // 2), [5.0] * MIN_STEPS)[-1]["grad/spike_score"] == 0


@pytest.mark.parametrize("at", [5, 150])
def test_the_scores_continue_from_their_state(at):
    norms = [*CHANCE.gamma(4, 2, 180), 900.0, *CHANCE.gamma(4, 2, 20)]
    whole = scores(norms, norms)
    half = SpikeScores()
    for norm in norms[:at]:
        half.update({"grad/norm": norm, "train/loss/total": norm})
    rest = SpikeScores()
    rest.load_state_dict(json.loads(json.dumps(half.state_dict())))
    values = [rest.update({"grad/norm": n, "train/loss/total": n}) for n in norms[at:]]
    assert values == whole[at:]
