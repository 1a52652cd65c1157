"""What `--checkpoint` may name: a file, the folder of a run, a sweep."""

import json
import os
from pathlib import Path

import pytest

from fsdet.checkpoint.lookup import find_checkpoint, find_run
from fsdet.errors import CheckpointError


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a sweep with two trials, in the usual place below the working directory."""
    monkeypatch.chdir(tmp_path)
    folder = Path("mlruns/sweeps/clip")
    for trial in ("0000", "0001"):
        (folder / "trials" / trial).mkdir(parents=True)
        (folder / "trials" / trial / "best.pt").write_bytes(b"weights")
    (folder / "sweep.yaml").write_text("name: clip\n")
    (folder / "best.json").write_text(json.dumps({"run_dir": "trials/0001"}))
    return folder


def test_a_file_stands_for_itself_and_its_run(sweep):
    file = sweep / "trials" / "0000" / "best.pt"
    assert find_checkpoint(file) == file
    assert find_run(file) == file.parent


def test_the_folder_of_a_run_stands_for_its_best_weights(sweep):
    run = sweep / "trials" / "0000"
    (run / "stage2_epoch0009.pt").touch()
    assert find_checkpoint(run) == run / "best.pt"


def test_a_run_without_evaluation_stands_for_its_newest_checkpoint(tmp_path):
    for epoch in (3, 1, 2):
        path = tmp_path / f"stage1_epoch{epoch:04d}.pt"
        path.touch()
        os.utime(path, (epoch, epoch))
    assert find_checkpoint(tmp_path).name == "stage1_epoch0003.pt"


@pytest.mark.parametrize("named", ["clip", "mlruns/sweeps/clip"])
def test_a_sweep_stands_for_its_best_trial(sweep, named):
    best = sweep / "trials" / "0001"
    assert find_run(Path(named)) == best
    assert find_checkpoint(Path(named)) == best / "best.pt"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("clap", r"^clap: checkpoint: no such checkpoint, run or sweep; did you mean 'clip'\?$"),
        ("a/b.pt", r"^a/b\.pt: checkpoint: no such checkpoint, run or sweep; name a \.pt file, "),
        ("mlruns", r"^mlruns: holds no checkpoint; name the checkpoint_dir of a run$"),
    ],
)
def test_what_there_is_not_is_refused_with_the_cure(sweep, named, message):
    with pytest.raises(CheckpointError, match=message):
        find_checkpoint(Path(named))


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"run_dir"'])
def test_a_sweep_without_best_trial_is_refused_with_the_cure(sweep, content):
    (sweep / "best.json").unlink()
    if content is not None:
        (sweep / "best.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"`python -m sweeps\.best clip` writes it"):
        find_checkpoint(Path("clip"))


def test_a_best_trial_whose_weights_are_elsewhere_is_named(sweep):
    (sweep / "trials" / "0001" / "best.pt").unlink()
    with pytest.raises(CheckpointError, match="trials/0001: holds no checkpoint"):
        find_checkpoint(Path("clip"))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "3", '{"run_dir"', None])
def test_a_damaged_best_json_names_no_best_trial(sweep, content):
    """A named pipe would be read for ever."""
    (sweep / "best.json").unlink()
    os.mkfifo(sweep / "best.json") if content is None else (sweep / "best.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"best\.json of this sweep names no best trial"):
        find_run(Path("clip"))


@pytest.mark.parametrize("run_dir", ["../../elsewhere", "/etc", 3])
def test_a_forged_best_trial_leads_nowhere(sweep, run_dir):
    (sweep / "best.json").write_text(json.dumps({"run_dir": run_dir}))
    with pytest.raises(CheckpointError, match="which is no folder of this sweep"):
        find_run(Path("clip"))
