import json
import subprocess
import sys

import pytest
from trained_runs import (
    LEARNING,
    STAGE_1,
    differences,
    evaluations,
    evaluations_computed,
    kept_reports,
    steps,
)
from trainings import overfit

from fsdet.checkpoint.content import load_checkpoint, load_detector, score_threshold_of
from fsdet.config import MODULES
from fsdet.config.parsing import save_config
from fsdet.errors import ConfigError
from fsdet.evaluation.metrics import evaluate_run
from fsdet.report import Report
from fsdet.train import train


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_epoch_is_reported_kept_and_evaluated_last(small_config, mode):
    config = small_config(**LEARNING, best_mode=mode)
    reports, result = kept_reports(config)
    values = [report.metrics["val/nAP50"] for report in reports]
    best_epoch = 1 + values.index(max(values) if mode == "max" else min(values))
    assert [report.phase for report in reports] == ["running", "running", "final"]
    assert values[0] < values[-1]  # so that by the smaller value the best epoch is not the last
    best = reports[-1].best
    assert (best.epoch, best.metrics) == (best_epoch, reports[best_epoch - 1].metrics)
    assert result.best_epoch == best_epoch
    assert result.metrics == reports[-1].final
    detector, stored = load_detector(config.checkpoint_dir / "best.pt", "cpu")
    assert evaluate_run(detector, stored, "cpu", final=True) == result.metrics
    assert evaluate_run(detector, stored, "cpu", final=False) == best.metrics
    rows = [
        json.loads(line)
        for line in (config.checkpoint_dir / "evaluations.jsonl").read_text().splitlines()
    ]
    assert [row.get("best_epoch") for row in rows] == [None, None, None, best_epoch]
    assert rows[-1]["val/nAP50"] == result.metrics["val/nAP50"]


@pytest.mark.parametrize("final_split", [None, "test"])
def test_a_complete_run_leaves_a_picture_and_its_score_threshold(small_config, final_split):
    """The threshold is chosen on the split that selects, not on the one that reports."""
    settings = {**LEARNING, "epochs": 2, "final_split": final_split}
    config = small_config(**settings)
    paused = train(config, until=1)
    best = config.checkpoint_dir / "best.pt"
    picture = config.checkpoint_dir / "detections.png"
    assert score_threshold_of(load_checkpoint(best)) is None
    assert not picture.exists()
    train(config, resume=paused.checkpoint)
    threshold = score_threshold_of(load_checkpoint(best))
    assert (threshold is None) == (final_split == "test")
    assert picture.stat().st_size > 10_000
    train(config)
    assert (config.checkpoint_dir / "earlier-1" / "detections.png").exists()


def test_the_best_epoch_of_stage_1_is_its_last(small_config):
    _, result = kept_reports(small_config(stage=1, n_episodes=2, batch_size=4))
    assert result.best_epoch == 2


def test_the_later_stage_runs_all_its_steps(small_config, base_run):
    config = small_config(resume=base_run.checkpoint, epochs=1, n_query=2)
    result = train(config)
    assert result.steps == config.total_steps
    assert [s["step"] for s in steps(result)] == list(range(1, config.total_steps + 1))


def test_only_the_newest_checkpoints_stay(small_config):
    result = train(small_config(stage=1, epochs=4, n_episodes=1, batch_size=2, eval_interval=4))
    kept = sorted(path.name for path in result.run_dir.glob("*.pt"))
    assert kept == ["best.pt", "stage1_epoch0003.pt", "stage1_epoch0004.pt"]


def test_a_run_that_went_on_keeps_as_many(small_config):
    config = small_config(stage=1, epochs=4, n_episodes=1, batch_size=2, eval_interval=4)
    half = train(config, until=2)
    result = train(config, resume=half.checkpoint)
    kept = sorted(path.name for path in result.run_dir.glob("stage*.pt"))
    assert kept == ["stage1_epoch0003.pt", "stage1_epoch0004.pt"]


def test_a_report_that_cannot_be_written_does_not_hide_what_ended_the_run(small_config, tmp_path):
    config = small_config(stage=1, epochs=1, n_episodes=2, batch_size=2, checkpoint_dir=tmp_path)

    def fail(_: Report) -> None:
        (tmp_path / "health.json").mkdir()
        raise RuntimeError("the first error")

    with pytest.raises(RuntimeError, match="the first error"):
        train(config, fail)


@pytest.mark.slow
def test_a_run_that_pauses_equals_one_that_never_does(small_config, tmp_path):
    settings = {**LEARNING, "save_interval": 9, "eval_interval": 2}
    settings |= {"early_eval_epochs": (1,), "early_eval_episodes": 2}
    whole = train(small_config(**settings, checkpoint_dir=tmp_path / "whole"))
    config = small_config(**settings, checkpoint_dir=tmp_path / "parts")
    first_reports, first = kept_reports(config, until=1)
    second_reports, second = kept_reports(config, resume=first.checkpoint, until=2)
    last_reports, last = kept_reports(config, resume=second.checkpoint)

    each = (first_reports, second_reports, last_reports)
    assert [[(r.phase, r.epoch) for r in reports] for reports in each] == [
        [("paused", 1)],
        [("running", 1), ("paused", 2)],
        [("running", 2), ("final", 3)],
    ]
    assert second_reports[0].metrics == first_reports[0].metrics
    assert first_reports[0].metrics["val/nAP50"] > 0
    assert last_reports[0].metrics == second_reports[1].metrics
    assert [result.paused for result in (first, second, last, whole)] == [True, True, False, False]
    assert [result.metrics for result in (first, second, last)] == [{}, {}, whole.metrics]
    assert (last.steps, last.best_epoch) == (whole.steps, whole.best_epoch)

    assert (last.run_dir / "steps.jsonl").read_bytes() == (
        whole.run_dir / "steps.jsonl"
    ).read_bytes()
    assert evaluations(last.run_dir) == evaluations(whole.run_dir)
    assert evaluations_computed(last.run_dir) == evaluations_computed(whole.run_dir) == 4
    for name in (whole.checkpoint.name, "best.pt"):
        assert differences(whole.run_dir / name, last.run_dir / name) == []


def test_a_pause_that_is_already_reached_is_reported_at_once(small_config):
    config = small_config(epochs=3, n_episodes=2)
    reports, first = kept_reports(config, until=2)
    files = {p: p.read_bytes() for p in config.checkpoint_dir.glob("*.jsonl")}
    again, second = kept_reports(config, resume=first.checkpoint, until=1)
    assert [(r.phase, r.epoch, r.metrics) for r in again] == [("paused", 2, reports[-1].metrics)]
    assert (second.paused, second.checkpoint, second.steps) == (True, first.checkpoint, first.steps)
    assert {p: p.read_bytes() for p in files} == files
    assert evaluations_computed(config.checkpoint_dir) == 2


def test_a_pause_at_or_behind_the_last_epoch_is_none(small_config):
    reports, result = kept_reports(small_config(epochs=1, n_episodes=2), until=2)
    assert [r.phase for r in reports] == ["final"]
    assert not result.paused


def test_a_pause_before_the_first_epoch_is_refused(small_config):
    config = small_config()
    with pytest.raises(ConfigError, match="until: must be at least 1, but got 0; ") as told:
        train(config, until=0)
    assert "\n" not in str(told.value)
    assert not config.checkpoint_dir.exists()


@pytest.mark.slow
def test_it_overfits_a_few_episodes(small_data):
    before, after = overfit()
    assert after > 0.9
    assert after > before + 0.3  # it is training that did it


@pytest.mark.slow
def test_an_explosion_is_a_result_and_an_exit_code(small_config, small_data):
    config = small_config(
        resume=STAGE_1, image_size=128, support_size=48, n_way=8, n_query=1, n_shot=3,
        n_episodes=30, epochs=1, batch_size=1, lr=3e-3, fusion_lr_mult=200,
        gradient_clip_norm=10, warmup_fraction=0, train_scenes=64,
    )  # fmt: skip
    reports: list[Report] = []
    result = train(config, reports.append)
    assert result.explosion is not None
    assert result.explosion.reason == "norm_ratio"
    assert result.explosion.step <= 30
    assert result.explosion.module in MODULES
    assert reports[-1].phase == "exploded"
    assert reports[-1].violation > 0
    assert reports[-1].metrics == {}
    save_config(config, config.checkpoint_dir / "again.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "fsdet.train", "--config", config.checkpoint_dir / "again.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert f"exploded at step {result.explosion.step}: " in done.stderr
    assert "Traceback" not in done.stderr
