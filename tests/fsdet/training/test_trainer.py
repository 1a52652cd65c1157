import json
import subprocess
import sys

import pytest
from trained_runs import LEARNING, STAGE_1, kept_reports, steps
from trainings import overfit

from fsdet.checkpoint import load_detector
from fsdet.config import MODULES
from fsdet.config.parsing import save_config
from fsdet.evaluation.metrics import evaluate_run
from fsdet.report import Best, Report
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.trainer import is_better


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


@pytest.mark.parametrize(
    ("settings", "before", "now", "better"),
    [
        ({}, {"val/nAP50": 0.5}, {"val/nAP50": 0.6}, True),
        ({}, {"val/nAP50": 0.5}, {"val/nAP50": 0.5}, False),
        ({}, {"val/nAP50": 0.5}, {}, False),
        ({}, {}, {"val/nAP50": 0.1}, True),
        ({"best_mode": "min"}, {"val/nAP50": 0.5}, {"val/nAP50": 0.6}, False),
        ({"best_metric": "nAP"}, {"val/nAP": 0.5}, {"val/nAP50": 0.9, "val/nAP": 0.4}, False),
        ({"stage": 1}, {"val/nAP50": 0.5}, {"val/nAP50": 0.1}, True),
    ],
)
def test_an_evaluation_is_the_best_so_far(small_config, train_set, settings, before, now, better):
    run = build_state(small_config(**settings), train_set, None)
    assert is_better(run, now)  # the first one
    run.best = Best(1, 2, before)
    assert is_better(run, now) is better


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
