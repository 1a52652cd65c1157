"""The step as a program: what it may ask of the device, and what of its values is read when."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trained_runs import STAGE_1, differences, equal, evaluations, kept_reports, steps, tensors

from fsdet.data.sources import load_image_set
from fsdet.structures import Batch
from fsdet.train import train
from fsdet.training import trainer
from fsdet.training.build import build_state
from fsdet.training.inputs import step_batches, step_input
from fsdet.training.state import TrainState
from fsdet.training.trainer import take_step, training_step

WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Of operators after which the host has to know values that the device computes."""
BY_INDEX = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_unsafe_index"}
"""Operators that wait for masks, but not for indices that are numbers."""


class Recorded(TorchDispatchMode):
    """All operators with the shapes they are given, and those of them that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.program: list[tuple[str, tuple[Any, ...]]] = []
        self.waiting: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        masked = any(
            x.dtype in (torch.bool, torch.uint8)
            for x in tree_leaves(args[1:2])
            if isinstance(x, torch.Tensor)
        )
        by_index = func.name().partition(".")[0] in BY_INDEX
        if masked if by_index else WAITS & {*func.tags}:
            self.waiting.append(func.name())
        self.program.append((func.name(), tuple(x.shape for x in given)))
        return func(*args, **(kwargs or {}))


class Lists(TorchFunctionMode):
    """`tolist`, which no operator is behind."""

    def __init__(self, waiting: list[str]) -> None:
        super().__init__()
        self._waiting = waiting

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.Tensor.tolist:
            self._waiting.append("tolist")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x.any()),
        lambda x: x.tolist(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), x.new_zeros(())),
        lambda x: x.masked_select(x > 0),
        lambda x: x.unique(),
        lambda x: x.repeat_interleave(x.long()),
        lambda x: torch.where(x),
    ],
)
def test_the_recorder_notices_what_waits(wait):
    with Recorded() as recorded, Lists(recorded.waiting):
        wait(torch.arange(3.0))
    assert recorded.waiting


def test_the_recorder_lets_pass_what_does_not_wait():
    with Recorded() as recorded, Lists(recorded.waiting):
        x = torch.arange(3.0)
        x[torch.tensor([0, 2])] = torch.where(x > 1, x, 0)[torch.tensor([1, 1])]
        torch.nonzero_static(x, size=2)
    assert recorded.waiting == []


def record(run: TrainState) -> tuple[Recorded, dict[str, float]]:
    """The program of the run's next step, and its values."""
    with Recorded() as recorded, Lists(recorded.waiting):
        taken = take_step(run)
    return recorded, taken.read()


def with_places(batch: Batch, objects: int) -> Batch:
    """The same batch with a fixed number of places for objects per image."""
    return replace(batch, targets=replace(batch.targets.padded(objects), limit=None))


STAGE_SETS = {1: "train", 2: "train", 3: "shots"}
SETTINGS = {
    "stage 1": {"stage": 1, "batch_size": 4},
    "stage 2": {"stage": 2},
    "stage 3": {"stage": 3},
    "ciou, AGC, average, accumulated": {
        "bbox_loss": "ciou", "gradient_clip_mode": "agc", "ema_decay": 0.9, "gradient_accumulation": 2,
    },
    "frozen": {"backbone_lr_mult": 0.0, "support_encoder_lr_mult": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_step_waits_for_nothing_and_its_shapes_are_those_of_the_batch(
    small_config, name, monkeypatch
):
    """Forward, losses, backward, norms, clipping, optimiser and average; with shares and ratios measured or not."""
    settings = {"n_episodes": 12, **SETTINGS[name]}
    config = small_config(**settings, share_interval=10)
    run = build_state(config, load_image_set(config, STAGE_SETS[config.stage]), None)
    batches = {
        request: with_places(run.batches.source.batch(*request), 16)
        for step in range(5)
        for request in step_batches(config, step)
    }
    for batch in batches.values():
        step_input(run, batch)  # what a frozen encoder computes once
    monkeypatch.setattr(run.batches.source, "batch", lambda *request: batches[request])
    recorded, values = zip(*[record(run) for _ in range(5)], strict=True)
    assert {name for step in recorded for name in step.waiting} == set()
    first, *others = (step.program for step in recorded)  # the first has shares and ratios
    assert len(first) > len(others[0]) > 1000
    assert others[0] == others[1] == others[2] == others[3]
    assert len({step["train/positives"] for step in values[2:]}) > 1


def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host read the values of a step a step later, as on a GPU."""
    monkeypatch.setitem(trainer.STEPS_BEHIND, "cpu", 1)


def test_a_run_that_reads_a_step_later_leaves_the_same(small_config, tmp_path, monkeypatch):
    """Whole, and paused and resumed."""
    settings = {"n_episodes": 3, "batch_size": 1}
    whole_reports, whole = kept_reports(small_config(**settings, checkpoint_dir=tmp_path / "whole"))
    late(monkeypatch)
    config = small_config(**settings, checkpoint_dir=tmp_path / "parts")
    first_reports, first = kept_reports(config, until=1)
    last_reports, last = kept_reports(config, resume=first.checkpoint)
    assert (last.run_dir / "steps.jsonl").read_bytes() == (
        whole.run_dir / "steps.jsonl"
    ).read_bytes()
    assert evaluations(last.run_dir) == evaluations(whole.run_dir)
    for name in (whole.checkpoint.name, "best.pt"):
        assert differences(whole.run_dir / name, last.run_dir / name) == []
    taken = [r.history["step"].tolist() for r in (*first_reports, *last_reports) if r.history]
    assert taken == [r.history["step"].tolist() for r in whole_reports if r.history]


def test_a_verdict_that_comes_a_step_later_is_about_the_same_step(
    small_config, tmp_path, monkeypatch
):
    settings = {"n_episodes": 8, "batch_size": 1, "explosion_norm": 1e-3, "explosion_patience": 3}
    at_once = train(small_config(**settings, checkpoint_dir=tmp_path / "at_once"))
    late(monkeypatch)
    later = train(small_config(**settings, checkpoint_dir=tmp_path / "later"))
    assert at_once.explosion == later.explosion
    assert later.explosion.step == 3
    assert (at_once.steps, later.steps) == (3, 4)
    assert steps(at_once) == steps(later)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("before", [0, 2])
def test_a_step_whose_gradients_are_not_finite_leaves_weights_and_moments(
    small_config, train_set, device, before
):
    run = build_state(small_config(device=device), train_set, None)
    for _ in range(before):
        training_step(run)
    weights, moments = copied(run.detector.state_dict()), copied(run.optimizer.state_dict())
    learned = {**run.criterion.weights}
    run.criterion.weights["cls"] = math.nan
    values, _ = training_step(run)
    run.criterion.weights = learned
    assert math.isnan(values["grad/norm"])
    assert run.step == before + 1
    for name, parameter in run.detector.named_parameters():
        assert torch.equal(parameter, weights[f"/{name}"]), name
    now = copied(run.optimizer.state_dict())
    assert [key for key in moments if "lr" not in key and not equal(moments[key], now[key])] == []
    assert all(not value.any() for key, value in now.items() if key not in moments)
    assert all(math.isfinite(training_step(run)[0]["grad/norm"]) for _ in range(2))
    assert all(p.isfinite().all() for p in run.detector.parameters())
    assert not torch.equal(run.detector.scs_fusion.none_token, weights["/scs_fusion.none_token"])


def copied(state: dict[str, Any]) -> dict[str, Any]:
    """All leaves of a state by path, as they are now."""
    return {
        key: value.clone() if isinstance(value, torch.Tensor) else value
        for key, value in tensors(state).items()
    }


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["off", "bf16", "fp16"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_on_a_gpu_the_host_never_waits_within_a_step(small_config, stage, precision):
    config = small_config(
        stage=stage, device="cuda", mixed_precision=precision, n_episodes=40, ema_decay=0.9,
        share_interval=3,
    )  # fmt: skip
    run = build_state(config, load_image_set(config, STAGE_SETS[stage]), None)
    for _ in range(4):
        training_step(run)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        taken = [take_step(run) for _ in range(9)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [step.read()["step"] for step in taken] == list(range(5, 14))


@pytest.mark.gpu
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_on_a_gpu_a_step_measures_what_it_measures_on_a_cpu(small_config, stage):
    settings = {"stage": stage, "resume": STAGE_1, "support_size": 48}
    measured = []
    for device in ("cpu", "cuda"):
        config = small_config(**settings, device=device)
        run = build_state(config, load_image_set(config, STAGE_SETS[stage]), None)
        measured.append(training_step(run)[0])
    for name, value in measured[0].items():
        assert measured[1][name] == pytest.approx(value, rel=0.02, abs=1e-3), name


@pytest.mark.gpu
def test_on_a_gpu_a_run_writes_every_step_and_stops_at_an_explosion(small_config, tmp_path):
    whole = train(small_config(device="cuda", checkpoint_dir=tmp_path / "whole"))
    assert [row["step"] for row in steps(whole)] == list(range(1, whole.steps + 1))
    settings = {"n_episodes": 8, "batch_size": 1, "explosion_norm": 1e-3, "explosion_patience": 3}
    stopped = train(small_config(**settings, device="cuda", checkpoint_dir=tmp_path / "stopped"))
    assert stopped.explosion.step == 3
    assert [row["step"] for row in steps(stopped)] == [1, 2, 3]
