"""Recorded steps: on a CPU by a recorder with the rules of a CUDA graph, on a GPU by CUDA graphs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from trained_runs import equal, steps, tensors

from fsdet.config.parsing import build_config
from fsdet.data.sources import load_image_set
from fsdet.errors import ConfigError
from fsdet.structures import Batch
from fsdet.train import train
from fsdet.training import graphs
from fsdet.training.build import build_state
from fsdet.training.graphs import StepGraphs, build_graphs
from fsdet.training.inputs import next_inputs
from fsdet.training.state import TrainState
from fsdet.training.step import run_step
from fsdet.training.trainer import take_step
from fsdet.training.values import Measured

STAGE_SETS = {1: "train", 2: "train", 3: "shots"}


class Tape(TorchDispatchMode):
    """Operators with the very tensors that they read and fill, as a CUDA graph keeps them.

    A number is what it was when the operator was recorded; a tensor is a place in memory.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators: list[tuple[Any, Any, Any, Any]] = []
        self.from_host: list[str] = []
        """Operators that make a tensor of numbers of the host."""
        self._made: set[int] = set()
        self._before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if func.name().startswith("aten::lift_fresh"):
            self.from_host.append(func.name())
        given = {place(x): x.untyped_storage() for x in held(args, kwargs)}
        for where in given.keys() - self._made - self._before.keys():
            self._before[where] = given[where], given[where].clone()
        out = func(*args, **kwargs)
        self._made |= {place(x) for x in held(out)} - given.keys()
        self.operators.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        """Give every tensor that was there before the recording its value of then."""
        for storage, value in self._before.values():
            storage.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self.operators:
            found = func(*args, **kwargs)
            for own, new in zip(held(out), held(found), strict=True):
                if place(own) != place(new):  # neither a view nor changed in place
                    own.copy_(new)


def held(*values: Any) -> list[torch.Tensor]:
    return [x for x in tree_leaves(values) if isinstance(x, torch.Tensor) and x.numel()]


def place(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class TapeRecorder:
    """Records on a CPU; as on a GPU, nothing is changed by the recording itself."""

    def __init__(self) -> None:
        self.tapes: list[Tape] = []
        self.replayed = 0

    def beside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def record(self, run: Callable[[], Measured]) -> tuple[Callable[[], None], Measured]:
        random = torch.get_rng_state()
        with Tape() as tape:
            measured = run()
        tape.undo()
        torch.set_rng_state(random)
        self.tapes.append(tape)

        def replay() -> None:
            self.replayed += 1
            tape.replay()

        return replay, measured


def padded(batch: Batch) -> Batch:
    """With 16 places for objects in each image, so that all steps have the same shapes."""
    return replace(batch, targets=replace(batch.targets.padded(16), limit=None))


def built(config: Any, monkeypatch: pytest.MonkeyPatch) -> TrainState:
    run = build_state(config, load_image_set(config, STAGE_SETS[config.stage]), None)
    batch = run.batches.source.batch
    monkeypatch.setattr(run.batches.source, "batch", lambda *request: padded(batch(*request)))
    return run


def recorded(run: TrainState) -> tuple[StepGraphs, TapeRecorder]:
    recorder = TapeRecorder()
    return StepGraphs(partial(run_step, run), run.optimizer, recorder), recorder


EVEN = {
    "lr": 2**-10, "warmup_fraction": 0, "final_lr_fraction": 1.0, "share_interval": None,
    "backbone_lr_mult": 0.5, "support_encoder_lr_mult": 0.25, "fusion_lr_mult": 2.0, "head_lr_mult": 2.0,
}  # fmt: skip
"""Learning rates that are the same number in single and in double precision."""
SETTINGS = {
    "stage 1": {"stage": 1, "batch_size": 4},
    "stage 2, average": {"stage": 2, "ema_decay": 0.9},
    "stage 3": {"stage": 3},
    "accumulated, AGC": {"gradient_accumulation": 2, "gradient_clip_mode": "agc"},
    "frozen": {"backbone_lr_mult": 0.0, "support_encoder_lr_mult": 0.0},
    "update clipping": {"gradient_clip_mode": "update"},
    "ZClip": {"gradient_clip_mode": "zclip", "zclip_warmup": 2},
    "AdaGC": {"gradient_clip_mode": "adagc", "adagc_warmup": 2},
    "SGD": {"optimizer": "sgd"},
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_replayed_steps_are_those_of_a_plain_run_to_the_last_bit(small_config, name, monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    config = small_config(**{"n_episodes": 40, **EVEN, **SETTINGS[name]})
    plain, replayed = (built(config, monkeypatch) for _ in range(2))
    steps_of, recorder = recorded(replayed)
    for _ in range(7):
        assert take_step(replayed, steps_of).read() == take_step(plain).read()
    assert (len(recorder.tapes), recorder.replayed) == (1, 5)  # the first two ran as they are
    assert recorder.tapes[0].from_host == []  # no copy from the host within a recorded step
    one, other = tensors(plain.state_dict()), tensors(replayed.state_dict())
    assert [key for key in one if not equal(one[key], other[key])] == []


def test_steps_that_measure_more_are_recorded_by_themselves(small_config, monkeypatch):
    """Update ratios every tenth step; gradient shares are never recorded."""
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    config = small_config(n_episodes=40, **{**EVEN, "share_interval": 7})
    plain, replayed = (built(config, monkeypatch) for _ in range(2))
    steps_of, recorder = recorded(replayed)
    rows = [take_step(replayed, steps_of).read() for _ in range(32)]
    assert rows == [take_step(plain).read() for _ in range(32)]
    assert [row["step"] for row in rows if "update_ratio/backbone" in row] == [1, 11, 21, 31]
    assert [row["step"] for row in rows if "grad/accumulation" in row] == [1, 8, 15, 22, 29]
    assert len(recorder.tapes) == 2
    # not: five with shares, the first one without, and 11, the first with ratios and no shares
    assert recorder.replayed == 32 - 5 - 1 - 1


def test_a_replayed_step_has_the_learning_rate_of_its_own_step(small_config, monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    settings = {"n_episodes": 5, "epochs": 2, "batch_size": 1, "share_interval": None}
    config = small_config(**settings, warmup_fraction=0.5, final_lr_fraction=0.0)
    plain, replayed = (built(config, monkeypatch) for _ in range(2))
    steps_of, recorder = recorded(replayed)
    rows = [take_step(replayed, steps_of).read() for _ in range(8)]
    expected = [take_step(plain).read() for _ in range(8)]
    assert recorder.replayed == 6
    for row, other in zip(rows, expected, strict=True):
        assert row["lr/backbone"] == other["lr/backbone"]
        assert row["train/loss/total"] == pytest.approx(other["train/loss/total"], rel=1e-4)
    # a rate that stayed as it was recorded would show
    monkeypatch.setattr(graphs, "rates_from", lambda *_: contextlib.nullcontext())
    stuck = built(config, monkeypatch)
    steps_of, _ = recorded(stuck)
    wrong = [take_step(stuck, steps_of).read() for _ in range(8)]
    assert wrong[-1]["train/loss/total"] != pytest.approx(
        expected[-1]["train/loss/total"], rel=1e-4
    )


def test_the_recorder_notices_what_a_cuda_graph_would_get_wrong():
    """A number of the host that changes, and a tensor that is replaced instead of changed."""
    count, total, place_ = [0], [torch.zeros(())], torch.zeros(())

    def run() -> Measured:
        count[0] += 1
        total[0] = total[0] + 1
        place_.add_(1)
        return Measured(["count"], torch.stack([place_ * count[0], total[0], place_]))

    run()
    replay, measured = TapeRecorder().record(run)
    assert place_ == 1
    replay()
    replay()
    assert measured.values.tolist() == [6, 2, 3]  # a run of its own has 9, 3, 3


def test_shapes_beyond_the_most_frequent_run_as_they_are(small_config, monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP", 0)
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 1)
    config = small_config(n_episodes=3, batch_size=2, share_interval=None)  # the last batch has one
    run = built(config, monkeypatch)
    steps_of, recorder = recorded(run)
    for _ in range(4):
        take_step(run, steps_of)
    assert (len(recorder.tapes), recorder.replayed) == (
        1,
        1,
    )  # step 1 measures ratios: its own kind


class Broken(TapeRecorder):
    """As a CUDA graph that refuses an operator, when all before it were recorded."""

    def record(self, run: Callable[[], Measured]) -> tuple[Callable[[], None], Measured]:
        super().record(run)
        raise RuntimeError("operation not permitted when stream is capturing\nand more")


def test_a_step_that_cannot_be_recorded_runs_as_it_is_and_is_told_once(
    small_config, monkeypatch, caplog
):
    monkeypatch.setattr(graphs, "WARM_UP", 1)
    config = small_config(n_episodes=40, share_interval=None)
    plain, run = (built(config, monkeypatch) for _ in range(2))
    steps_of = StepGraphs(partial(run_step, run), run.optimizer, Broken())
    rows = [take_step(run, steps_of).read() for _ in range(5)]
    assert rows == [take_step(plain).read() for _ in range(5)]
    told = [r.getMessage() for r in caplog.records if "CUDA graph" in r.getMessage()]
    reason = "operation not permitted when stream is capturing"
    assert told == [f"a step cannot be recorded as a CUDA graph, and runs as it is: {reason}"]


def test_a_step_that_must_be_recorded_and_cannot_be_ends_the_run(small_config, monkeypatch):
    monkeypatch.setattr(graphs, "WARM_UP", 0)
    run = built(small_config(n_episodes=40, share_interval=None), monkeypatch)
    steps_of = StepGraphs(partial(run_step, run), run.optimizer, Broken(), required=True)
    with pytest.raises(RuntimeError, match="not permitted"):
        take_step(run, steps_of)


def test_a_graph_that_is_impossible_leaves_an_earlier_run_alone(small_config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("here it is possible")
    earlier = tmp_path / "steps.jsonl"
    earlier.write_text('{"step": 1}\n', encoding="utf-8")
    config = small_config(device="auto", cuda_graph="on", checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match="cuda_graph: 'on' is impossible with device cpu"):
        train(config)
    assert earlier.read_text(encoding="utf-8") == '{"step": 1}\n'


def test_inputs_of_equal_shapes_are_of_one_kind(small_config, monkeypatch):
    run = built(small_config(n_episodes=4, batch_size=1), monkeypatch)
    kinds = []
    for step in range(3):
        run.step = step
        kinds.append(next_inputs(run).kind)
    assert kinds[1] == kinds[2] != kinds[0]  # the first measures shares and ratios


def test_on_a_cpu_there_are_no_graphs_and_the_setting_says_so(small_config, monkeypatch):
    run = built(small_config(), monkeypatch)
    assert build_graphs(run) is None
    on = replace(run, config=small_config(device="auto", cuda_graph="on"))
    with pytest.raises(ConfigError, match="cuda_graph: 'on' is impossible with device cpu"):
        build_graphs(on)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"device": "cpu"}, "device cpu"),
        ({"mixed_precision": "fp16"}, "mixed_precision fp16"),
        ({"compile": True}, "compile"),
        ({"debug": True}, "debug"),
    ],
)
def test_a_graph_that_cannot_be_is_refused_at_the_door(settings, reason):
    with pytest.raises(ConfigError, match=f"cuda_graph on is impossible with {reason}"):
        build_config({"cuda_graph": "on", **settings})


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["off", "bf16"])
@pytest.mark.parametrize("stage", [1, 2, 3])
def test_on_a_gpu_graphs_differ_from_a_plain_run_as_two_plain_runs_differ(
    small_config, tmp_path, stage, precision
):
    losses = {}
    for name in ("off", "off again", "on"):
        config = small_config(
            stage=stage, device="cuda", mixed_precision=precision, n_episodes=30, batch_size=1, epochs=1,
            cuda_graph=name.partition(" ")[0], ema_decay=0.9, checkpoint_dir=tmp_path / name,
        )  # fmt: skip
        losses[name] = torch.tensor([row["train/loss/total"] for row in steps(train(config))])
    noise = (losses["off"] - losses["off again"]).abs().max()
    assert (losses["off"] - losses["on"]).abs().max() <= max(10 * noise, 0.02 * losses["off"].max())


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["norm", "agc", "update", "zclip", "adagc"])
def test_on_a_gpu_every_clip_mode_is_recorded(small_config, mode):
    config = small_config(device="cuda", n_episodes=60, batch_size=1, gradient_clip_mode=mode)
    run = build_state(config, load_image_set(config, "train"), None)
    steps_of = build_graphs(run)
    assert steps_of is not None
    taken = [take_step(run, steps_of) for _ in range(40)]
    assert steps_of._recorded
    assert all(torch.isfinite(torch.tensor(step.read()["grad/norm"])) for step in taken)
