"""The findings of a real evaluation."""

from pathlib import Path

import numpy as np
import pytest

from fsdet.checkpoint.content import load_detector
from fsdet.evaluation.findings import Findings
from fsdet.evaluation.metrics import evaluate_run

STAGE_1 = Path(__file__).parents[3] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


@pytest.fixture
def findings(small_config) -> Findings:
    found = Findings(kept=2)
    detector, _ = load_detector(STAGE_1, "cpu")
    config = small_config(eval_episodes=3, eval_draws=1, n_query=2)
    with_findings = evaluate_run(detector, config, "cpu", final=True, on_episode=found.add)
    assert with_findings == evaluate_run(detector, config, "cpu", final=True)
    return found


def test_the_first_episodes_are_kept_with_their_matches(findings):
    assert len(findings.episodes) == 2
    for one in findings.episodes:
        assert len(one.found) == len(one.matches) == len(one.episode.images) == 4
        for row, (found, matches) in enumerate(zip(one.found, one.matches, strict=True)):
            chosen = matches[matches >= 0]
            assert len(set(chosen.tolist())) == len(chosen)
            labels = one.episode.targets.labels[row][one.episode.targets.mask[row]]
            assert np.array_equal(found.labels[matches >= 0], labels[chosen])


def test_the_threshold_is_a_score_with_which_something_is_right(findings):
    found = findings.threshold
    assert found is not None
    assert 0 < found.value < 1
    assert 0 < found.f1 <= 1


def test_without_episodes_there_is_no_threshold():
    assert Findings(kept=1).threshold is None
