"""Which checkpoint a trial resumes from: the newest that is whole and its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from made_up_checkpoint import made_up_content

from fsdet.checkpoint.content import save_checkpoint
from fsdet.config import TrainConfig
from sweeps.trial.identity import load_trial, newest_checkpoint


def checkpoint(path: Path, **changes: Any) -> Path:
    """One of the trainer's, of a trial with `changes`."""
    config = TrainConfig(**changes)
    save_checkpoint(path, made_up_content(config), config)
    return path


def newest(folder: Path, **changes: Any) -> tuple[Path | None, list[str]]:
    """The checkpoint that a trial with `changes` goes on from, and what it says of the others."""
    told: list[str] = []
    config = TrainConfig(checkpoint_dir=folder, **changes)
    return newest_checkpoint(config, told.append), told


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "not finite"])
def test_damaged_newest_checkpoint_falls_back_to_the_one_before(damage):
    for epoch in (1, 2, 10):
        checkpoint(Path(f"stage2_epoch{epoch:04d}.pt"))
    last = Path("stage2_epoch0010.pt")
    assert newest(Path()) == (last, [])
    data = bytearray(last.read_bytes())
    data[20000] ^= 1
    broken = {"cut": data[:20000], "flipped": data, "empty": b"", "text": b"hello"}
    if damage in broken:
        last.write_bytes(broken[damage])
    else:
        content = torch.load(last, weights_only=True)
        content["detector"]["detection_head.bias"].fill_(torch.nan)
        torch.save(content, last)
    found, (told,) = newest(Path())
    assert found == Path("stage2_epoch0002.pt")
    assert "stage2_epoch0010.pt: resume: not a checkpoint that can be " in told
    assert told.endswith("; the checkpoint before it is used, if any")
    assert last.with_suffix(".damaged").is_file()
    assert newest(Path("nowhere")) == (None, [])


def test_checkpoint_of_other_settings_falls_back_to_the_one_before():
    own = checkpoint(Path("stage2_epoch0001.pt"), lr=0.2, checkpoint_dir="elsewhere", device="cpu")
    checkpoint(Path("stage2_epoch0002.pt"), lr=0.5)
    torch.save({"weights": torch.arange(9)}, "stage2_epoch0003.pt")
    found, told = newest(Path(), lr=0.2)
    assert found == own
    assert "stage2_epoch0003.pt: resume: not a checkpoint of this trainer" in told[0]
    assert "stage2_epoch0002.pt was made with lr 0.5, but this trial has 0.2" in told[1]
    assert "move it back and resume" in told[1]
    assert sorted(p.name for p in Path().iterdir())[1:] == [
        "stage2_epoch0002.foreign",
        "stage2_epoch0003.damaged",
    ]


def test_checkpoint_of_another_node_is_the_trial_s_though_it_found_the_files_elsewhere():
    path = checkpoint(Path("stage2_epoch0001.pt"), resume="/there/files/1f-a.pt")
    assert newest(Path(), resume="/here/files/1f-a.pt") == (path, [])
    assert newest(Path(), resume="/here/files/2e-b.pt")[0] is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", ["[" * 100_000, '{"settings": [], "sweep": {}}', "3", None])
def test_a_damaged_trial_json_says_nothing(tmp_path, content):
    """A named pipe would be read for ever, and /dev/zero until the memory is full."""
    path = tmp_path / "trial.json"
    os.mkfifo(path) if content is None else path.write_text(content)
    assert load_trial(tmp_path) == {}
    path.unlink()
    path.symlink_to("/dev/zero")
    assert load_trial(tmp_path) == {}
