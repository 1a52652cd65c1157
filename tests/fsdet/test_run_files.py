import math

import pytest
from trained_runs import steps

from fsdet.errors import FsdetError
from fsdet.run_files import EvaluationLog, StepHistory, find_evaluation, metrics_of
from fsdet.train import train


def test_a_run_leaves_the_files_of_an_earlier_one_whole(small_config):
    first = train(small_config(epochs=1, n_episodes=4))
    before = (first.run_dir / "steps.jsonl").read_text()
    second = train(small_config(epochs=1, n_episodes=2))
    assert (first.run_dir / "earlier-1" / "steps.jsonl").read_text() == before
    assert len(steps(second)) == 1
    assert (second.run_dir / "health.json").exists()


def test_a_mistake_found_late_leaves_the_files_of_an_earlier_run(small_config, tmp_path):
    first = train(small_config(epochs=1))
    before = (first.run_dir / "config.yaml").read_text()
    with pytest.raises(FsdetError):
        train(small_config(support_encoder="resnet10t", support_size=48, cache_dir=tmp_path / "x"))
    assert (first.run_dir / "config.yaml").read_text() == before


def test_an_evaluation_is_read_back_to_the_last_digit(tmp_path):
    metrics = {"val/nAP50": 0.1 + 0.2, "val/nAP75": math.inf, "val/swap_gap": math.nan}
    log = EvaluationLog(tmp_path, 0)
    log.append(4, 1, {"early_episodes": 2.0, **metrics}, "cpu")
    log.append(6, 2, metrics, "cpu")
    log.append(6, 2, {"best_epoch": 1.0}, "cpu")
    lines = (tmp_path / "evaluations.jsonl").read_text().splitlines(keepends=True)
    early, last = (find_evaluation(tmp_path, step) for step in (4, 6))
    assert early["early_episodes"] == 2
    for row in (early, last):
        found = metrics_of(row)
        assert math.isnan(found.pop("val/swap_gap"))
        assert found.items() <= metrics.items()
        assert len(found) == 2
    assert find_evaluation(tmp_path, 5) is None
    EvaluationLog(tmp_path, 6, last)  # resumed there: only the evaluation at the end is repeated
    assert (tmp_path / "evaluations.jsonl").read_text() == "".join(lines[:2])
    EvaluationLog(tmp_path, 6)
    assert (tmp_path / "evaluations.jsonl").read_text() == lines[0]


def test_steps_are_not_kept_where_nobody_listens(small_config, monkeypatch):
    kept: list[int] = []
    append = StepHistory.append

    def counting(self, values):
        append(self, values)
        kept.append(len(self._rows))

    monkeypatch.setattr(StepHistory, "append", counting)
    config = small_config(epochs=4)
    train(config)
    assert len(kept) == config.total_steps
    assert max(kept) == config.steps_per_epoch
