"""Where a trial trains: in its folder, or in a copy of it; what is pushed to the URL, and fetched again."""

from __future__ import annotations

from pathlib import Path

from conftest import small_spec
from made_up_trainers import made_up
from trial_requests import context_for, request_for

from sweeps.storage.remote import RemoteFolder
from sweeps.trial.messages import TrialReport
from sweeps.trial.trial import run_trial
from sweeps.trial.trial_dir import RemoteTrialDir, TrialDir


def place_at(url: str, **files: str) -> RemoteTrialDir:
    place = RemoteTrialDir(url)
    place.run_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place.run_dir / name.replace("__", ".")).write_text(text)
    return place


def test_trial_finds_the_newest_two_checkpoints_and_leaves_no_older_one(url):
    first = place_at(url)
    with first.opened():
        for epoch in (1, 2, 3):
            (first.run_dir / f"stage1_epoch000{epoch}.pt").write_text(str(epoch))
            (first.run_dir / "steps.jsonl").write_text("x" * epoch)
            first.sync()
    assert not first.run_dir.exists()
    second = place_at(url, stage1_epoch0009__pt="of a worker that could not push it")
    with second.opened():
        there = {path.name for path in second.run_dir.iterdir()}
        assert there == {"stage1_epoch0002.pt", "stage1_epoch0003.pt", "steps.jsonl"}
        second.sync()
        assert RemoteFolder(url).list_files() == there
    assert RemoteFolder(url).list_files() == there


def test_what_other_settings_left_is_set_aside_at_the_url_and_stays_there(url, in_own_folder):
    spec = small_spec()
    context = context_for(spec, in_own_folder / "trials", f"{url}/trials")
    reports: list[TrialReport] = []
    for lr in (0.5, 0.2, 0.2):
        run_trial(context, request_for(spec, {"lr": lr}), reports.append, made_up)
        names = RemoteFolder(f"{url}/trials/0000").list_files()
        assert {"trial.json", "pid", "config.yaml"} <= names
        assert ("earlier-1/pid" in names) == (lr == 0.2)
        assert not any(name.startswith("earlier-2") for name in names)
    assert [r.objective for r in reports[2:4]] == [0.49, 0.19]
    told = [r.set_aside for r in reports if r.set_aside]
    assert told == [reports[3].set_aside]
    assert "was made with lr 0.5, but this trial has 0.2" in told[0]


def test_only_what_changed_is_pushed_and_checkpoints_first(tmp_path, monkeypatch):
    pushed: list[str] = []
    push = RemoteFolder.upload

    def noted(self: RemoteFolder, path: Path, name: str | None = None) -> None:
        pushed.append(str(name))
        push(self, path, name)

    monkeypatch.setattr(RemoteFolder, "upload", noted)
    place = place_at(f"file://{tmp_path}/storage")
    with place.opened():
        for name in ("steps.jsonl", "stage1_epoch0001.pt"):
            (place.run_dir / name).write_text("x")
        place.sync()
        (place.run_dir / "steps.jsonl").write_text("better")
    assert pushed == ["stage1_epoch0001.pt", "steps.jsonl", "steps.jsonl"]


def test_trial_at_a_url_trains_elsewhere_and_the_driver_gets_its_files(url, in_own_folder):
    reports: list[TrialReport] = []
    spec = small_spec()
    context = context_for(spec, in_own_folder / "trials", f"{url}/trials")
    request = request_for(spec, {"lr": 0.5}, 3)
    run_trial(context, request, reports.append, made_up)
    run_dir = context.run_dir(request.folder)
    assert [r.phase for r in reports] == ["running", "running", "final"]
    assert not run_dir.exists()
    context.download(request.folder, ["config.yaml", "never.txt"])
    assert [path.name for path in run_dir.iterdir()] == ["config.yaml"]
    assert "training_debug.log" in RemoteFolder(f"{url}/trials/0003").list_files()


def test_without_a_url_a_trial_trains_in_its_folder(in_own_folder):
    context = context_for(small_spec(), in_own_folder / "trials")
    place = context.trial_dir("0003")
    assert type(place) is TrialDir
    assert place.run_dir == in_own_folder / "trials" / "0003"
