import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from trainings import overfit

from fsdet.checkpoint import load_detector
from fsdet.config import MODULES, TrainConfig
from fsdet.config.parsing import save_config
from fsdet.data.sources import load_image_set
from fsdet.errors import CheckpointError, FsdetError
from fsdet.evaluation.metrics import evaluate_run
from fsdet.report import Best, Report, Result
from fsdet.run_files import StepHistory
from fsdet.train import train
from fsdet.training.build import build_state
from fsdet.training.resuming import HARMLESS
from fsdet.training.step import backward, initial_norm, measure_reference, step_batches
from fsdet.training.trainer import is_better, training_step

STAGE_1 = Path(__file__).parents[3] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


class InterruptError(Exception):
    pass


def stop_after(epoch: int):
    def on_report(report: Report) -> None:
        if report.epoch == epoch:
            raise InterruptError

    return on_report


def tensors(content, prefix: str = "") -> dict[str, object]:
    """All leaves of nested dicts and lists by path."""
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list | tuple):
        pairs = enumerate(content)
    else:
        return {prefix: content}
    return {k: v for key, part in pairs for k, v in tensors(part, f"{prefix}/{key}").items()}


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    return a == b or (a != a and b != b)


def steps(result: Result | TrainConfig) -> list[dict[str, object]]:
    folder = result.run_dir if isinstance(result, Result) else result.checkpoint_dir
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def state(path: Path) -> dict[str, object]:
    content = torch.load(path, weights_only=True)
    del content["config"]
    return tensors(content)


def assert_resumed_equals_uninterrupted(build, tmp_path: Path, epoch: int, **settings) -> None:
    whole = train(build(**settings, checkpoint_dir=tmp_path / "whole"))
    config = build(**settings, checkpoint_dir=tmp_path / "parts")
    with pytest.raises(InterruptError):
        train(config, stop_after(epoch))
    half = config.checkpoint_dir / f"stage{config.stage}_epoch{epoch:04d}.pt"
    resumed = train(config, resume=half)
    assert resumed.explosion == whole.explosion
    assert resumed.metrics == whole.metrics
    assert resumed.steps == whole.steps == config.total_steps
    one, other = state(whole.checkpoint), state(resumed.checkpoint)
    assert one.keys() == other.keys()
    assert [key for key in one if not equal(one[key], other[key])] == []
    assert steps(whole) == steps(resumed)


def test_a_resumed_run_equals_one_never_interrupted(small_config, tmp_path):
    assert_resumed_equals_uninterrupted(small_config, tmp_path, 1, n_query=2)


@pytest.mark.parametrize(
    "settings",
    [
        {"ema_decay": 0.9},
        {"gradient_clip_mode": "agc"},
        {"support_encoder_lr_mult": 0.0},
        {"stage": 3},
        {"stop_on_explosion": False, "explosion_norm": 1e-3},
    ],
    ids=str,
)
def test_a_resumed_run_equals_one_never_interrupted_with(small_config, tmp_path, settings):
    assert_resumed_equals_uninterrupted(small_config, tmp_path, 1, n_query=2, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_of_stage_1_equals_one_never_interrupted(small_config, tmp_path, epoch):
    assert_resumed_equals_uninterrupted(small_config, tmp_path, epoch, stage=1, epochs=3)


def test_a_run_resumed_behind_a_measured_step_goes_on(small_config, tmp_path):
    settings = {"n_episodes": 2, "n_query": 2}  # one step an epoch: epoch 1 ends behind step 1
    assert_resumed_equals_uninterrupted(small_config, tmp_path, 1, **settings)


def kept_reports(config: TrainConfig, **arguments) -> tuple[list[Report], Result]:
    reports: list[Report] = []
    result = train(config, reports.append, **arguments)
    return reports, result


LEARNING = {
    "resume": STAGE_1, "support_size": 48, "image_size": 96, "n_way": 4, "n_query": 2,
    "eval_episodes": 4, "epochs": 3, "lr": 3e-3,
}  # fmt: skip
"""Settings with which AP50 rises from epoch to epoch."""


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


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [1, 2])
def test_a_killed_run_finds_the_same_best_epoch_again(small_config, tmp_path, killed_at):
    settings = {**LEARNING, "best_mode": "min"}
    whole = train(small_config(**settings, checkpoint_dir=tmp_path / "whole"))
    config = small_config(**settings, checkpoint_dir=tmp_path / "parts")
    with pytest.raises(InterruptError):
        train(config, stop_after(killed_at))
    resumed = train(config, resume=config.checkpoint_dir / f"stage2_epoch000{killed_at}.pt")
    assert (resumed.metrics, resumed.best_epoch) == (whole.metrics, whole.best_epoch)


def test_weights_of_a_later_best_epoch_do_not_stand_for_an_earlier_one(small_config, tmp_path):
    """The run was killed behind its checkpoint, after `best.pt` had been replaced."""
    settings = {"resume": STAGE_1, "support_size": 48, "epochs": 3, "lr": 1e-3}
    config = small_config(**settings)
    whole = train(config)
    checkpoint = config.checkpoint_dir / "stage2_epoch0002.pt"
    stored = torch.load(checkpoint, weights_only=True)
    later = torch.load(config.checkpoint_dir / "best.pt", weights_only=True)
    torch.save({**later, "epoch": 3}, config.checkpoint_dir / "best.pt")
    assert stored["best"]["epoch"] == 1
    resumed = train(config, resume=checkpoint)
    assert resumed.best_epoch >= 2
    assert resumed.steps == whole.steps


def test_a_stage_starts_at_its_beginning_with_a_fresh_optimiser(small_config, base_run, train_set):
    earlier = torch.load(base_run.checkpoint, weights_only=True)
    run = build_state(small_config(resume=base_run.checkpoint), train_set, None)
    assert run.step == run.epoch == 0
    assert not run.optimizer.state_dict()["state"]
    assert run.scheduler.last_epoch == 0
    weights = run.detector.state_dict()
    assert all(torch.equal(weights[name], t) for name, t in earlier["detector"].items())


def test_a_run_resumed_with_harmless_changes_equals_one_never_interrupted(small_config, tmp_path):
    settings = {"n_query": 2, "share_interval": 1}
    whole = train(small_config(**settings, checkpoint_dir=tmp_path / "whole"))
    with pytest.raises(InterruptError):
        train(small_config(**settings), stop_after(1))
    others = {
        "share_interval": None,
        "eval_interval": 7,
        "save_interval": 5,
        "debug": True,
        "num_workers": 1,
        "cache_limit_gb": 49,
        "support_pretrained": False,
        "yolo_weights": tmp_path / "none.pt",
        "health_norm": (1.0, 2.0),
        "checkpoint_dir": tmp_path / "on",
    }
    assert {*others} < {*HARMLESS}
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    resumed = train(small_config(**{**settings, **others, "resume": half}))
    one, other = (torch.load(r.checkpoint, weights_only=True) for r in (whole, resumed))
    for part in ("detector", "criterion", "optimizer", "stability", "rng", "step"):
        a, b = tensors(one[part]), tensors(other[part])
        assert a.keys() == b.keys()
        assert [key for key in a if not equal(a[key], b[key])] == []
    assert other["changed"] == []
    assert not (tmp_path / "on" / "changes.json").exists()


CHANGES = {
    "lr": 5e-3,
    "weight_decay": 0.5,
    "gradient_clip_norm": 0.01,
    "dfl_weight": 1.5,
    "bbox_loss": "ciou",
    "ema_decay": 0.9,
    "mixed_precision": "fp16",
    "support_size": 48,
    "epochs": 3,
    "n_episodes": 6,
}


@pytest.mark.parametrize("key", CHANGES)
def test_a_stage_does_not_resume_with_other_settings(small_config, tmp_path, key):
    with pytest.raises(InterruptError):
        train(small_config(), stop_after(1))
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    changed = small_config(resume=half, checkpoint_dir=tmp_path / "on", **{key: CHANGES[key]})
    with pytest.raises(CheckpointError, match=rf"resume: .* {key} was .*; set {key}: "):
        train(changed)
    assert not (tmp_path / "on").exists()


def test_a_deliberate_change_is_made_logged_and_recorded(small_config, tmp_path, caplog):
    with pytest.raises(InterruptError):
        train(small_config(), stop_after(1))
    half = tmp_path / "run" / "stage2_epoch0001.pt"
    step = torch.load(half, weights_only=True)["step"]
    config = small_config(**CHANGES, resume=half, resume_with_changes=True)
    result = train(config)
    state = torch.load(result.checkpoint, weights_only=True)
    before = small_config()
    for key, value in CHANGES.items():
        then = getattr(before, key)
        change = {"stage": 2, "step": step, "setting": key, "from": then, "to": value}
        assert change in state["changed"]
    others = {change["setting"] for change in state["changed"]} - {*CHANGES}
    assert others == {
        f"{kind} data" for kind in ("training", "base", "novel")
    }  # by the support_size
    assert json.loads((result.run_dir / "changes.json").read_text()) == state["changed"]
    for key, value in CHANGES.items():
        line = f"resumed with a change: {key} {getattr(before, key)!r} -> {value!r}"
        assert line in caplog.text
        assert line in (result.run_dir / "training_debug.log").read_text()
    assert result.steps == config.total_steps
    assert "ema" in state
    for group in state["optimizer"]["param_groups"]:
        assert group["initial_lr"] == config.lr * config.lr_mults[group["name"]]
        assert group["weight_decay"] in (config.weight_decay, 0.0)
    again = build_state(
        small_config(**CHANGES, resume=result.checkpoint), load_image_set(config, "train"), None
    )
    assert again.changed == state["changed"]  # which need no permission any more
    later = small_config(resume=result.checkpoint, stage=3)
    assert build_state(later, load_image_set(later, "shots"), None).changed == state["changed"]


@pytest.mark.parametrize("key", ["backbone_lr_mult", "support_encoder_lr_mult"])
def test_a_stage_resumes_with_the_tensors_that_it_trained_or_not_at_all(
    small_config, tmp_path, key
):
    result = train(small_config(epochs=1))
    config = small_config(
        epochs=1, resume=result.checkpoint, resume_with_changes=True, **{key: 0.0}
    )
    with pytest.raises(CheckpointError, match=rf"trains other tensors .*changed: {key}\)"):
        train(config)


def test_a_stage_does_not_resume_with_other_data(small_config, train_set, tmp_path):
    config = small_config()
    build_state(config, train_set, None).save(tmp_path / "c.pt")
    moved = replace(train_set, boxes=train_set.boxes + 1)
    with pytest.raises(
        CheckpointError, match=r"training data was .* and is .*; name the same data_root"
    ):
        build_state(config, moved, tmp_path / "c.pt")
    allowed = small_config(resume_with_changes=True)
    run = build_state(allowed, moved, tmp_path / "c.pt")
    assert [change["setting"] for change in run.changed] == ["training data"]


def test_a_stage_does_not_resume_on_another_kind_of_device(small_config, train_set, tmp_path):
    config = small_config(device="auto")
    build_state(config, train_set, None).save(tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    build_state(
        small_config(device=state["inputs"]["kind of device"]), train_set, tmp_path / "c.pt"
    )
    torch.save({**state, "inputs": {**state["inputs"], "kind of device": "tpu"}}, tmp_path / "t.pt")
    with pytest.raises(
        CheckpointError, match=r"kind of device was 'tpu' and is .*; run on the same"
    ):
        build_state(config, train_set, tmp_path / "t.pt")


def test_a_class_that_was_trained_on_is_not_novel(small_config, base_run, tmp_path):
    state = torch.load(base_run.checkpoint, weights_only=True)
    assert len(state["trained_on"]) > 900
    state["trained_on"].append(load_image_set(small_config(), "val").names[0])
    torch.save(state, tmp_path / "leaky.pt")
    with pytest.raises(CheckpointError, match=r"was trained on .*, novel in this run"):
        train(small_config(resume=tmp_path / "leaky.pt"))


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


def test_the_later_stage_runs_all_its_steps(small_config, base_run):
    config = small_config(resume=base_run.checkpoint, epochs=1, n_query=2)
    result = train(config)
    assert result.steps == config.total_steps
    assert [s["step"] for s in steps(result)] == list(range(1, config.total_steps + 1))


def test_a_stage_does_not_start_from_a_later_one(small_config, base_run, tmp_path):
    result = train(small_config(epochs=1, resume=base_run.checkpoint, n_episodes=2))
    folder = tmp_path / "back"
    with pytest.raises(CheckpointError, match="is of stage 2, but the run is stage 1"):
        train(small_config(stage=1, resume=result.checkpoint, checkpoint_dir=folder))
    assert not folder.exists()


def test_a_healthy_run_logs_what_people_search_for(small_config, base_run):
    result = train(small_config(resume=base_run.checkpoint, n_query=2, debug=True))
    lines = (result.run_dir / "training_debug.log").read_text().splitlines()
    start = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] (DEBUG|INFO|WARNING|ERROR) - "
    assert all(re.match(start, line) for line in lines)
    for name in ("Gradient norm", "Loss breakdown"):
        assert len([line for line in lines if name in line]) == result.steps
    assert [line for line in lines if re.search(r"\b(nan|inf)\b", line, re.IGNORECASE)] == []
    assert (result.run_dir / "config.yaml").exists()


def test_shares_and_totals_of_a_step_add_up(base_run):
    for step in steps(base_run):
        weighted = [v for k, v in step.items() if k.startswith("train/weighted/")]
        assert len(weighted) == 4
        assert sum(weighted) == pytest.approx(step["train/loss/total"], rel=1e-5)
        shares = [v for k, v in step.items() if k.startswith("train/share/")]
        assert sum(shares) == pytest.approx(1, rel=1e-5)
        modules = [step[f"grad/norm/{name}"] for name in MODULES]
        assert math.hypot(*modules) == pytest.approx(step["grad/norm"], rel=1e-5)
        assert all(norm > 0 for norm in modules)


def test_the_norm_is_that_of_the_gradients_before_clipping(small_config, base_run, train_set):
    config = small_config(resume=base_run.checkpoint, gradient_clip_norm=0.01, epochs=1)
    run = build_state(config, train_set, None)
    backward(run)
    grads = [p.grad for p in run.detector.parameters() if p.grad is not None]
    expected = float(torch.nn.utils.get_total_norm(grads))
    first = steps(train(config))[0]
    assert first["grad/norm"] == pytest.approx(expected, rel=1e-5)
    assert first["grad/clipped"] == 1
    assert expected > 0.01


def test_the_batch_size_is_the_number_of_episodes_in_a_forward_pass(small_config, train_set):
    for batch_size in (1, 2, 3):
        run = build_state(small_config(batch_size=batch_size, n_query=2), train_set, None)
        seen = []
        run.detector.backbone.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(len(args[0]))
        )
        backward(run)
        assert seen == [batch_size * 2 * 2]


def test_gradients_of_accumulated_batches_are_their_mean(small_config, train_set):
    run = build_state(small_config(batch_size=1, gradient_accumulation=2), train_set, None)
    backward(run)
    together = {n: p.grad.clone() for n, p in run.detector.named_parameters() if p.grad is not None}
    assert step_batches(run.config, 0) == [(0, 1), (1, 1)]
    alone = build_state(small_config(batch_size=1), train_set, None)
    total: dict[str, torch.Tensor] = {}
    for index in range(2):
        backward(replace(alone, step=index))
        for name, parameter in alone.detector.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad / 2
    assert together.keys() == total.keys()
    for name in together:
        torch.testing.assert_close(together[name], total[name], rtol=1e-3, atol=1e-5)


def test_every_episode_of_an_epoch_is_used_once(small_config):
    config = small_config(n_episodes=11, batch_size=2, gradient_accumulation=3)
    dealt = [
        episode
        for step in range(2 * config.steps_per_epoch)
        for first, count in step_batches(config, step)
        for episode in range(first, first + count)
    ]
    assert dealt == list(range(22))


def test_a_frozen_module_does_not_move(small_config, train_set):
    config = small_config(epochs=1, n_query=2, backbone_lr_mult=0)
    before = build_state(config, train_set, None).detector.state_dict()
    result = train(config)
    after = torch.load(result.checkpoint, weights_only=True)["detector"]
    frozen = [n for n in before if n.startswith("backbone")]  # running statistics too
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["scs_fusion.none_token"], after["scs_fusion.none_token"])
    assert {step["grad/norm/backbone"] for step in steps(result)} == {0}


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


def test_checkpoints_of_another_run_are_left_alone(small_config):
    config = small_config(stage=1, epochs=1, n_episodes=1, batch_size=2, eval_interval=4)
    config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    others = [config.checkpoint_dir / f"stage1_epoch{n:04d}.pt" for n in (90, 100)]
    for other in others:
        other.write_bytes(b"of another run")
    result = train(config)
    assert result.checkpoint is not None
    assert result.checkpoint.exists()
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("stage", [1, 2])
def test_the_own_norm_is_measured_without_a_trace(small_config, train_set, stage):
    """Weights, running statistics, random numbers and all later steps stay the same bit for bit."""
    settings = {"stage": stage, "n_query": 2, "bbox_loss": "wiou_v3", "share_interval": 1}
    measured, plain = (build_state(small_config(**settings), train_set, None) for _ in range(2))
    torch.manual_seed(7)
    before = torch.get_rng_state()
    norm = initial_norm(measured, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert 1 < norm < 1e4
    one, other = tensors(measured.state_dict()), tensors(plain.state_dict())
    assert [key for key in one if "rng" not in key and not equal(one[key], other[key])] == []
    for _ in range(3):
        assert training_step(measured)[0] == training_step(plain)[0]
    one, other = tensors(measured.state_dict()), tensors(plain.state_dict())
    assert [key for key in one if not equal(one[key], other[key])] == []


def test_the_own_norm_is_that_of_the_first_batches_before_any_update(small_config, train_set):
    config = small_config(n_query=2, lr=1e-20)
    run, frozen = (build_state(config, train_set, None) for _ in range(2))
    norms = [training_step(frozen)[0]["grad/norm"] for _ in range(3)]
    assert initial_norm(run, 3) == pytest.approx(max(norms), rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "same"),
    [
        ({"lr": 1.0}, True),
        ({"fusion_lr_mult": 50.0, "gradient_clip_norm": 0.1, "weight_decay": 0.5}, True),
        ({"cls_weight": 5.0}, False),
        ({"image_size": 96}, False),
        ({"batch_size": 4}, False),
    ],
    ids=str,
)
def test_the_reference_depends_on_the_losses_and_the_data_but_on_no_rate(
    small_config, settings, same
):
    found = []
    for changes in ({}, settings):
        config = small_config(resume=STAGE_1, support_size=48, n_query=2, **changes)
        run = build_state(config, load_image_set(config, "train"), None)
        measure_reference(run)
        found.append(run.stability.reference)
    assert (found[0] == found[1]) is same


def test_a_reference_that_is_given_is_not_measured(small_config):
    config = small_config(explosion_reference=5.0)
    result = train(config)
    assert torch.load(result.checkpoint, weights_only=True)["stability"]["reference"] == 5.0
    assert (
        "before the first update" not in (config.checkpoint_dir / "training_debug.log").read_text()
    )
