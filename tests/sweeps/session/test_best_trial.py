"""`best.json` is what the trainer's commands read: they find the weights by the name of the sweep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fsdet.checkpoint.lookup import find_checkpoint
from sweeps.session.best_trial import best_weights, detections_of, record_best_trial
from sweeps.storage.lookup import new_folder
from sweeps.storage.remote import RemoteFolder


def test_the_name_of_a_sweep_leads_to_its_best_weights():
    folder = new_folder("small")
    folder.spec_file.write_text("name: small\n", encoding="utf-8")
    weights = folder.trials_dir / "0003" / "best.pt"
    weights.parent.mkdir(parents=True)
    record_best_trial(folder, "0003")
    assert best_weights(folder) is None  # none were written
    weights.write_bytes(b"weights")
    assert best_weights(folder) == weights
    assert find_checkpoint(Path("small")).resolve() == weights.resolve()


def test_from_a_url_weights_and_picture_are_downloaded(tmp_path):
    folder = new_folder("small", storage=f"file://{tmp_path}/bucket")
    remote = RemoteFolder(f"{folder.url}/trials/0002")
    (tmp_path / "file").write_bytes(b"content")
    for name in ("best.pt", "detections.png"):
        remote.upload(tmp_path / "file", name)
    record_best_trial(folder, "0002")
    weights, picture = best_weights(folder), detections_of(folder, "0002")
    assert weights is not None
    assert picture is not None
    assert weights.read_bytes() == picture.read_bytes() == b"content"
    assert RemoteFolder(folder.url or "").exists("best.json")


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_record_names_nothing(content):
    folder = new_folder("small")
    (folder.path / "best.json").write_text(content, encoding="utf-8")
    assert best_weights(folder) is None
    assert detections_of(folder, "0000") is None


WITHOUT_TORCH = """
import sys
import subprocess
import sys
from pathlib import Path
import sweeps.session.sweep
from fsdet.config import TrainConfig
from sweeps.session.best_trial import best_weights, record_best_trial
from sweeps.storage.lookup import new_folder
from sweeps.trial.identity import newest_checkpoint

folder = new_folder("small")
record_best_trial(folder, "0000")
best_weights(folder)
newest_checkpoint(TrainConfig(checkpoint_dir=folder.path), print)
print("torch" in sys.modules)
"""


def test_neither_a_driver_nor_a_first_start_of_a_trial_loads_torch(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WITHOUT_TORCH, encoding="utf-8")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n", done.stderr
