"""Damage to a checkpoint is noticed by its one reader, at once and without taking memory."""

import math
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from made_up_checkpoint import made_up_content
from memory_use import refusal_of

from fsdet.checkpoint.content import load_checkpoint, save_checkpoint
from fsdet.checkpoint.validation import check_content
from fsdet.config import TrainConfig
from fsdet.errors import CheckpointError
from fsdet.models.detector import build_detector
from fsdet.training.build import build_state

CONFIG = TrainConfig(embed_dim=32, device="cpu")
WEIGHT = "scs_fusion.none_token"


@pytest.fixture(scope="session")
def resumable(tmp_path_factory, train_set) -> Path:
    """A checkpoint of a run, with its optimiser."""
    config = TrainConfig(embed_dim=32, n_way=2, device="cpu", image_size=64, support_size=32)
    state = build_state(config, train_set, None)
    for parameters in state.detector.parameters():
        parameters.grad = torch.zeros_like(parameters)
    state.optimizer.step()
    path = tmp_path_factory.mktemp("resumable") / "c.pt"
    state.save(path)
    return path


def test_a_checkpoint_of_a_run_and_a_small_one_are_complete(resumable, tmp_path):
    assert "optimizer" in load_checkpoint(resumable)
    save_checkpoint(tmp_path / "a.pt", made_up_content(CONFIG), CONFIG)
    assert "optimizer" not in load_checkpoint(tmp_path / "a.pt")


def other_weight(value: torch.Tensor) -> dict[str, object]:
    return {"detector": {**made_up_content(CONFIG)["detector"], WEIGHT: value}}


SHAPE = made_up_content(CONFIG)["detector"][WEIGHT].shape
BAD = {
    "nan": (other_weight(torch.full(SHAPE, torch.nan)), "is not finite"),
    "infinite": (other_weight(torch.full(SHAPE, torch.inf)), "is not finite"),
    "average": ({"ema": other_weight(torch.full(SHAPE, torch.nan))["detector"]}, "ema.* finite"),
    "type": (other_weight(torch.zeros(SHAPE, dtype=torch.int64)), "but is .* int64"),
    "shape": (other_weight(torch.zeros(3)), r"but is \(3,\) float32"),
    "expanded": (other_weight(torch.zeros(1).expand(SHAPE)), "more values"),
    "no weights": ({"detector": {}}, "is missing"),
    "criterion": ({"criterion": {"box_loss.iou_mean": torch.tensor(torch.nan)}}, "not finite"),
    "stage": ({"stage": 7}, "^stage: "),
    "step": ({"step": "3"}, "^step: "),
    "negative step": ({"step": -1}, "^step: "),
    "classes": ({"trained_on": [b"cup"]}, r"^trained_on\.0: "),
    "changes": ({"changed": [3]}, r"^changed\.0: "),
    "settings": ({"config": {"lr": 3}}, r"^config\.stage: field required"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_a_checkpoint_must_hold_is_checked(name):
    values, told = BAD[name]
    state = {"config": CONFIG.model_dump(mode="json"), **made_up_content(CONFIG)}
    check_content(state)
    with pytest.raises(ValueError, match=told):
        check_content({**state, **values})


@pytest.mark.parametrize("key", ["config", "stage", "step", "detector", "criterion", "trained_on"])
def test_what_is_missing_is_named(key, tmp_path):
    state = {"config": CONFIG.model_dump(mode="json"), **made_up_content(CONFIG)}
    del state[key]
    with pytest.raises(ValueError, match=f"^{key}: field required"):
        check_content(state)


RESUMABLE_BAD = {
    "rng": (lambda s: s | {"rng": torch.zeros(3)}, "^rng: "),
    "other rng": (lambda s: s | {"rng": torch.full_like(s["rng"], 255)}, "^rng: "),
    "best": (lambda s: s | {"best": {"epoch": 1}}, r"^best\.step: "),
    "explosion": (lambda s: s | {"explosion": {"odd": 1}}, r"^explosion\."),
    "scaler": (lambda s: s | {"scaler": {"scale": "x"}}, r"^scaler\.scale: "),
    "peaks": (lambda s: s | {"gradient_peaks": {"x": None}}, r"^gradient_peaks\.x: "),
    "modules": (
        lambda s: s | {"stability": s["stability"] | {"module_norms": {"x": [1.0]}}},
        r"^stability\.module_norms: ",
    ),
    "clipping": (
        lambda s: s | {"clipping": {"mean": torch.tensor(math.nan)}},
        r"^clipping\.mean: ",
    ),
    "another optimiser": (
        lambda s: s | {"config": s["config"] | {"optimizer": "sgd"}},
        r"^optimizer\.state\.0: must hold momentum_buffer",
    ),
    "spikes": (
        lambda s: s | {"spikes": {"norm": {"window": ["x"], "spikes": 0}}},
        r"^spikes\.norm\.window\.0: ",
    ),
    "no stability": (lambda s: {k: v for k, v in s.items() if k != "stability"}, "^stability: "),
}


@pytest.mark.parametrize("name", RESUMABLE_BAD)
def test_what_a_stage_resumes_from_is_checked(name, resumable):
    change, told = RESUMABLE_BAD[name]
    with pytest.raises(ValueError, match=told):
        check_content(change(load_checkpoint(resumable)))


@pytest.mark.parametrize(
    ("part", "value", "told"),
    [
        ("exp_avg", torch.nan, "not finite"),
        ("exp_avg_sq", -1.0, "at least 0"),
        ("step", torch.inf, "not finite"),
    ],
)
def test_the_moments_of_the_optimiser_are_checked(resumable, part, value, told):
    state = deepcopy(load_checkpoint(resumable))
    state["optimizer"]["state"][3][part].fill_(value)
    with pytest.raises(ValueError, match=rf"^optimizer\.state\.3\.{part}.*{told}"):
        check_content(state)
    del state["optimizer"]["state"][3][part]
    with pytest.raises(ValueError, match="must hold step, exp_avg and exp_avg_sq"):
        check_content(state)


def test_moments_of_other_shapes_are_refused_on_resume(resumable, train_set, tmp_path):
    config = TrainConfig(embed_dim=32, n_way=2, device="cpu", image_size=64, support_size=32)
    build_state(config, train_set, resumable)
    state = load_checkpoint(resumable)
    for name in ("exp_avg", "exp_avg_sq"):
        state["optimizer"]["state"][0][name] = torch.zeros(5)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="trains other tensors than this run"):
        build_state(config, train_set, tmp_path / "x.pt")


def test_lists_within_lists_are_not_walked_for_ever():
    many: list[object] = []
    for _ in range(60):
        many = [many, many]
    own: list[object] = []
    own.append(own)
    for odd in (many, own):
        with pytest.raises(ValueError, match="more than 1000000 values"):
            check_content({"config": odd})


@pytest.mark.parametrize("embed_dim", [1024, 16_000_000])
def test_a_file_that_claims_wide_embeddings_takes_no_memory(tmp_path, embed_dim):
    config = CONFIG.model_dump(mode="json") | {"embed_dim": embed_dim}
    torch.save({**made_up_content(CONFIG), "format": 1, "config": config}, tmp_path / "c.pt")
    imports = "from fsdet.checkpoint.content import load_checkpoint; from fsdet.errors import CheckpointError"
    told, kilobytes = refusal_of(tmp_path / "c.pt", imports, "load_checkpoint", "CheckpointError")
    assert "c.pt: resume: not a checkpoint that can be used: " in told
    assert kilobytes < 60_000  # the file has 3.5 MB


def test_weights_that_are_not_finite_are_refused_by_name(tmp_path):
    weights = build_detector(CONFIG).state_dict()
    weights["backbone.layers.0.conv.weight"][0, 0, 0, 0] = torch.nan
    save_checkpoint(tmp_path / "x.pt", made_up_content(CONFIG, detector=weights), CONFIG)
    with pytest.raises(
        CheckpointError, match=r"x\.pt: resume: .*backbone\.layers\.0\.conv\.weight is"
    ):
        load_checkpoint(tmp_path / "x.pt")


def test_a_loss_of_another_version_starts_no_stage(small_config, train_set, tmp_path):
    config = small_config()
    other = {"box_loss.iou_mean": torch.zeros(3)}
    save_checkpoint(tmp_path / "x.pt", made_up_content(config, criterion=other), config)
    with pytest.raises(CheckpointError, match=r"x\.pt: resume: .*box_loss\.iou_mean"):
        build_state(config, train_set, tmp_path / "x.pt")
