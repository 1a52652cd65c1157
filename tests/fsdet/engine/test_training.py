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

from fsdet.config import MODULES, TrainConfig
from fsdet.config_file import save_config
from fsdet.data.sources import load_image_set
from fsdet.engine.logs import StepHistory
from fsdet.engine.report import Report, Result
from fsdet.engine.run import build_run
from fsdet.engine.step import backward, step_batches
from fsdet.errors import CheckpointError, FsdetError
from fsdet.train import train

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


def test_a_stage_starts_at_its_beginning_with_a_fresh_optimiser(small_config, base_run, train_set):
    earlier = torch.load(base_run.checkpoint, weights_only=True)
    run = build_run(small_config(resume=base_run.checkpoint), train_set, None)
    assert run.step == run.epoch == 0
    assert not run.optimizer.state_dict()["state"]
    assert run.scheduler.last_epoch == 0
    weights = run.detector.state_dict()
    assert all(torch.equal(weights[name], t) for name, t in earlier["detector"].items())
    assert run.stability.reference == earlier["reference_norm"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ema_decay", 0.9),
        ("gradient_accumulation", 2),
        ("n_episodes", 6),
        ("mixed_precision", "fp16"),
    ],
)
def test_a_stage_does_not_go_on_with_other_settings(small_config, tmp_path, key, value):
    first = train(small_config(epochs=1))
    changed = small_config(
        epochs=2, resume=first.checkpoint, checkpoint_dir=tmp_path / "on", **{key: value}
    )
    with pytest.raises(CheckpointError, match=rf"resume: .* with {key} .*; set {key}: "):
        train(changed)
    assert not (tmp_path / "on").exists()


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
    run = build_run(config, train_set, None)
    backward(run)
    grads = [p.grad for p in run.detector.parameters() if p.grad is not None]
    expected = float(torch.nn.utils.get_total_norm(grads))
    first = steps(train(config))[0]
    assert first["grad/norm"] == pytest.approx(expected, rel=1e-5)
    assert first["grad/clipped"] == 1
    assert expected > 0.01


def test_the_batch_size_is_the_number_of_episodes_in_a_forward_pass(small_config, train_set):
    for batch_size in (1, 2, 3):
        run = build_run(small_config(batch_size=batch_size, n_query=2), train_set, None)
        seen = []
        run.detector.backbone.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.append(len(args[0]))
        )
        backward(run)
        assert seen == [batch_size * 2 * 2]


def test_gradients_of_accumulated_batches_are_their_mean(small_config, train_set):
    run = build_run(small_config(batch_size=1, gradient_accumulation=2), train_set, None)
    backward(run)
    together = {n: p.grad.clone() for n, p in run.detector.named_parameters() if p.grad is not None}
    assert step_batches(run.config, 0) == [(0, 1), (1, 1)]
    alone = build_run(small_config(batch_size=1), train_set, None)
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
    before = build_run(config, train_set, None).detector.state_dict()
    result = train(config)
    after = torch.load(result.checkpoint, weights_only=True)["detector"]
    frozen = [n for n in before if n.startswith("backbone")]  # running statistics too
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["scs_fusion.none_token"], after["scs_fusion.none_token"])
    assert {step["grad/norm/backbone"] for step in steps(result)} == {0}


def test_only_the_newest_checkpoints_stay(small_config):
    result = train(small_config(stage=1, epochs=4, n_episodes=1, batch_size=2, eval_interval=4))
    kept = sorted(path.name for path in result.run_dir.glob("*.pt"))
    assert kept == ["stage1_epoch0003.pt", "stage1_epoch0004.pt"]


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
