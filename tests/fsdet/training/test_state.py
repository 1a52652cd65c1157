from pathlib import Path

import pytest
import torch
from trained_runs import LEARNING, STAGE_1, InterruptError, equal, state, steps, stop_after

from fsdet.train import train


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
        {"gradient_clip_mode": "update"},
        {"gradient_clip_mode": "zclip", "zclip_warmup": 2, "zclip_z": 0.1},
        {"gradient_clip_mode": "adagc", "adagc_warmup": 2, "optimizer": "sgd"},
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


@pytest.mark.slow
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
