import json

import pytest
from trained_runs import LEARNING, differences, evaluations, evaluations_computed, kept_reports

from fsdet.config.parsing import load_config, save_config
from fsdet.errors import CheckpointError
from fsdet.report import Best
from fsdet.run_files import EvaluationLog
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.evaluating import episodes_due, is_better, stored_evaluation


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
@pytest.mark.parametrize("full", [True, False])
def test_an_evaluation_is_the_best_so_far(
    small_config, train_set, settings, before, now, better, full
):
    run = build_state(small_config(**settings), train_set, None)
    assert is_better(run, now, full)  # the first one
    run.best = Best(1, 2, before, full)
    assert is_better(run, now, full) is better
    run.best = Best(1, 2, before, not full)
    assert is_better(run, now, full) is full  # whatever the values


def test_epochs_are_evaluated_in_full_early_or_not_at_all(small_config, train_set):
    config = small_config(
        epochs=9, eval_interval=4, eval_episodes=5, early_eval_epochs=(1, 2, 4, 9, 12), early_eval_episodes=3
    )  # fmt: skip
    run = build_state(config, train_set, None)

    def due(until: int | None) -> list[int]:
        """Episodes that are due after each step."""
        numbers = []
        for run.step in range(1, config.total_steps + 1):
            numbers.append(episodes_due(run, config.steps_until(until)))
        return numbers

    assert config.steps_per_epoch == 2
    assert due(None) == [0, 3, 0, 3, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 5, 0, 5]
    assert due(2)[:4] == [0, 3, 0, 3]
    assert due(3)[:6] == [0, 3, 0, 3, 0, 5]


@pytest.mark.slow
def test_early_evaluations_do_not_disturb_training_and_full_ones_replace_them(
    small_config, tmp_path
):
    settings = {**LEARNING, "eval_interval": 2, "best_mode": "min"}
    early = {"early_eval_epochs": (1,), "early_eval_episodes": 2}
    plain = train(small_config(**settings, checkpoint_dir=tmp_path / "plain"))
    reports, result = kept_reports(small_config(**settings, **early))
    assert (result.run_dir / "steps.jsonl").read_bytes() == (
        plain.run_dir / "steps.jsonl"
    ).read_bytes()
    assert differences(plain.checkpoint, result.checkpoint) == []
    assert result.metrics == plain.metrics

    first, *others = evaluations(result.run_dir)
    assert (first["epoch"], first["early_episodes"]) == (1, 2)
    assert others == evaluations(plain.run_dir)  # as if there had been no early one
    assert [(r.best.epoch, r.best.full) for r in reports][:2] == [(1, False), (2, True)]
    assert reports[1].metrics["val/nAP50"] > reports[0].metrics["val/nAP50"]  # worse by its value


def test_what_a_killed_run_has_stored_is_taken_over_and_the_rest_computed(small_config, tmp_path):
    """Stage 1, where the last epoch is the best."""
    config = small_config(stage=1, epochs=3, n_episodes=2)
    folder = config.checkpoint_dir
    log = folder / "evaluations.jsonl"
    (*_, paused), result = kept_reports(config, until=2)
    stored, (first, second) = evaluations(folder), log.read_text().splitlines(keepends=True)
    best = (folder / "best.pt").rename(tmp_path / "best.pt")

    def computed_again() -> int:
        (folder / "best.pt").unlink(missing_ok=True)
        before = evaluations_computed(folder)
        (report,), again = kept_reports(config, resume=result.checkpoint, until=2)
        assert (report.phase, report.metrics, report.best) == (
            "paused",
            paused.metrics,
            paused.best,
        )
        assert again.best_epoch == 2
        assert evaluations(folder) == stored
        assert differences(folder / "best.pt", best) == []
        return evaluations_computed(folder) - before

    assert computed_again() == 0  # killed before best.pt was written

    log.write_text(first)  # killed before the evaluation
    assert computed_again() == 1

    log.write_text(first + second[:-9])  # killed while its line was written
    assert computed_again() == 1

    early = {**json.loads(second), "early_episodes": 1.0, "val/nAP50": 0.9}
    log.write_text(first + json.dumps(early) + "\n")  # a full one is due
    assert computed_again() == 1

    log.write_text(first + json.dumps({**json.loads(second), "val/nAP50": 0.9}) + "\n")
    save_config(load_config(folder / "config.yaml", {"seed": 5}), folder / "config.yaml")
    assert computed_again() == 1  # since the folder was another run's


def test_the_evaluation_of_a_pause_counts_where_no_other_is_due(small_config):
    config = small_config(epochs=2, eval_interval=9)
    (paused,), first = kept_reports(config, until=1)
    (repeated, last), result = kept_reports(config, resume=first.checkpoint)
    assert (repeated.phase, repeated.metrics) == ("running", paused.metrics)
    values = [report.metrics["val/nAP50"] for report in (paused, last)]
    assert result.best_epoch == 1 + values.index(max(values))
    assert [row["epoch"] for row in evaluations(result.run_dir)] == [1, 2, 2]
    assert evaluations_computed(result.run_dir) == 3


def test_the_best_evaluation_in_an_older_checkpoint_is_a_full_one(small_config, train_set):
    config = small_config()
    run = build_state(config, train_set, None)
    run.best = Best(1, 2, {"val/nAP50": 0.5})
    saved = run.state_dict()
    del saved["best"]["full"]
    run.load_state_dict(saved)
    assert run.best.full


def test_what_was_evaluated_before_a_change_is_not_taken_over(small_config, train_set):
    config = small_config()
    run = build_state(config, train_set, None)
    run.step = config.steps_per_epoch
    save_config(config, config.checkpoint_dir / "config.yaml")
    EvaluationLog(config.checkpoint_dir, 0).append(run.step, 1, {"val/nAP50": 0.5}, "cpu")
    run.changed = [{"stage": 2, "step": run.step - 1, "setting": "novel data"}]
    assert stored_evaluation(run, config.total_steps)["val/nAP50"] == 0.5
    run.changed = [{"stage": 2, "step": run.step, "setting": "novel data"}]
    assert stored_evaluation(run, config.total_steps) is None


def test_a_run_whose_weights_are_no_longer_finite_ends_without_best_weights(small_config):
    """If explosions are only recorded."""
    config = small_config(lr=1e30, warmup_fraction=0, stop_on_explosion=False, epochs=2)
    result = train(config)
    assert result.explosion is not None
    assert result.steps == config.total_steps
    assert not (result.run_dir / "best.pt").exists()
    with pytest.raises(CheckpointError, match="not finite: the run had exploded"):
        train(config, resume=result.checkpoint)
