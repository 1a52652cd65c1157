"""Where the files of a sweep go: a shared folder, a URL; what is there is whole and found again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import small_spec
from made_up_trainers import made_up
from optuna.samplers import RandomSampler
from servers import s3_server

import fsdet
from fsdet.config_file import build_config
from sweeps.errors import SweepError
from sweeps.storage.folder import find_folder, new_folder, sweeps_root
from sweeps.storage.mirror import Mirror, StorageError
from sweeps.storage.shipping import read_in_place, settle, ship
from sweeps.storage.workplace import MirroredWorkplace, Workplace, scratch
from sweeps.study.place import begin_store, store_of
from sweeps.study.study import create_study
from sweeps.trial.trial import TrialPlan, run_trial


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as bucket:
        yield bucket


@pytest.fixture(params=["file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty place in a storage of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/storage"
    return f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def test_file_goes_there_and_back_and_is_replaced(url: str, tmp_path: Path) -> None:
    mirror, here = Mirror(url), tmp_path / "a.txt"
    for text in ("first", "second, and longer"):
        here.write_text(text)
        mirror.push(here, "deep/down/b.txt")
        assert mirror.fetch("deep/down/b.txt", tmp_path / "back.txt")
        assert (tmp_path / "back.txt").read_text() == text
    assert mirror.names() == {"deep/down/b.txt"}
    assert mirror.below("deep").names() == {"down/b.txt"}
    mirror.remove(["deep/down/b.txt", "never/there"])
    assert mirror.names() == set()
    assert not mirror.fetch("deep/down/b.txt", tmp_path / "back.txt")


def test_file_that_is_cut_off_on_its_way_has_no_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, here = Mirror(f"file://{tmp_path}/storage"), tmp_path / "x.pt"
    here.write_text("whole")
    monkeypatch.setattr(type(mirror._files), "mv", lambda *_: 1 / 0)
    monkeypatch.setattr("sweeps.storage.mirror.PAUSES", ())
    with pytest.raises(StorageError):
        mirror.push(here)
    assert mirror.names() == set()


def test_short_outage_is_bridged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, here = Mirror(f"file://{tmp_path}/storage"), tmp_path / "x.pt"
    here.write_text("whole")
    move, failures = type(mirror._files).mv, [ConnectionError("away")] * 2

    def shaky(*arguments: Any) -> None:
        if failures:
            raise failures.pop()
        move(*arguments)

    monkeypatch.setattr(type(mirror._files), "mv", shaky)
    monkeypatch.setattr("sweeps.storage.mirror.PAUSES", (0, 0))
    mirror.push(here)
    assert mirror.names() == {"x.pt"}


def place_at(url: str, **files: str) -> MirroredWorkplace:
    place = MirroredWorkplace(url)
    place.run_dir.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place.run_dir / name.replace("__", ".")).write_text(text)
    return place


def test_trial_finds_the_newest_checkpoint_and_leaves_no_older_one(url: str) -> None:
    first = place_at(url)
    with first.opened():
        for epoch in (1, 2):
            (first.run_dir / f"stage1_epoch000{epoch}.pt").write_text(str(epoch))
            (first.run_dir / "steps.jsonl").write_text("x" * epoch)
            first.keep()
    assert not first.run_dir.exists()
    second = place_at(url, stage1_epoch0009__pt="of a worker that could not push it")
    with second.opened():
        there = {path.name for path in second.run_dir.iterdir()}
        assert there == {"stage1_epoch0002.pt", "steps.jsonl"}
        second.keep()
        assert Mirror(url).names() == there
    assert Mirror(url).names() == there


def test_what_other_settings_left_is_set_aside_at_the_url_and_stays_there(
    url: str, in_own_folder: Path
) -> None:
    plan = TrialPlan(small_spec(), in_own_folder / "trials", f"{url}/trials", sweep="x")
    reports: list[dict[str, Any]] = []
    for lr in (0.5, 0.2, 0.2):
        suggestion = {"number": 0, "parameters": {"lr": lr}}
        run_trial(plan, suggestion, reports.append, made_up)
        names = Mirror(f"{url}/trials/0000").names()
        assert {"trial.json", "pid", "config.yaml"} <= names
        assert ("earlier-1/pid" in names) == (lr == 0.2)
        assert not any(name.startswith("earlier-2") for name in names)
    assert [r["objective"] for r in reports[2:4]] == [0.49, 0.19]
    told = [r["set_aside"] for r in reports if "set_aside" in r]
    assert told == [reports[3]["set_aside"]]
    assert "was made with lr 0.5, but this trial has 0.2" in told[0]


def test_only_what_changed_is_pushed_and_checkpoints_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pushed: list[str] = []
    push = Mirror.push

    def noted(self: Mirror, path: Path, name: str | None = None) -> None:
        pushed.append(str(name))
        push(self, path, name)

    monkeypatch.setattr(Mirror, "push", noted)
    place = place_at(f"file://{tmp_path}/storage")
    with place.opened():
        for name in ("steps.jsonl", "stage1_epoch0001.pt"):
            (place.run_dir / name).write_text("x")
        place.keep()
        (place.run_dir / "steps.jsonl").write_text("better")
    assert pushed == ["stage1_epoch0001.pt", "steps.jsonl", "steps.jsonl"]


def test_trial_at_a_url_trains_elsewhere_and_the_driver_gets_its_files(
    url: str, in_own_folder: Path
) -> None:
    reports: list[dict[str, Any]] = []
    plan = TrialPlan(small_spec(), in_own_folder / "trials", f"{url}/trials")
    run_trial(plan, {"number": 3, "parameters": {"lr": 0.5}}, reports.append, made_up)
    assert [r["phase"] for r in reports] == ["running", "running", "final"]
    assert not plan.run_dir(3).exists()
    plan.fetch(3, ["config.yaml", "never.txt"])
    assert [path.name for path in plan.run_dir(3).iterdir()] == ["config.yaml"]
    assert "training_debug.log" in Mirror(f"{url}/trials/0003").names()


def test_without_a_url_a_trial_trains_in_its_folder(in_own_folder: Path) -> None:
    plan = TrialPlan(small_spec(), in_own_folder / "trials")
    place = plan.workplace(3)
    assert type(place) is Workplace
    assert place.run_dir == in_own_folder / "trials" / "0003"


def test_shared_folder_holds_the_sweeps(tmp_path: Path) -> None:
    shared = str(tmp_path / "shared")
    folder = new_folder("a", storage=shared)
    folder.save_spec(small_spec())
    assert folder.path == tmp_path / "shared" / "a"
    assert find_folder("a", shared) == folder
    with pytest.raises(SweepError, match=r"no such sweep in .*mlruns"):
        find_folder("a")
    assert sweeps_root(str(tmp_path)) == tmp_path


def test_another_machine_finds_the_sweep_at_its_url(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = new_folder("a", storage=url)
    folder.save_spec(small_spec(trials=7))
    folder.update_record(sweep_id="of this one")
    with pytest.raises(SweepError, match="holds one already"):
        new_folder("a", storage=url)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert new_folder("a", numbered=True, storage=url).name == "a-2"
    found = find_folder("a", url)
    assert found.path.is_relative_to(tmp_path / "other")
    assert found.load_spec().trials == 7
    assert found.sweep_id() == "of this one"
    with pytest.raises(SweepError, match=f"no such sweep in {url}"):
        find_folder("b", url)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nonsense://bucket/x", "cannot be opened"),
        ("s3://no-such-bucket-4711/x", "cannot be used"),
        ("file:///proc/x", "cannot be used"),
    ],
)
def test_storage_that_cannot_be_used_is_told_in_one_line(
    path: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    monkeypatch.setattr("sweeps.storage.mirror.PAUSES", ())
    here = tmp_path / "x"
    here.write_text("x")
    with pytest.raises(StorageError, match=told) as caught:
        Mirror(path).push(here)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["s3://key:secret@bucket/x", "https://host/x?token=secret"])
def test_storage_takes_no_secret(path: str) -> None:
    with pytest.raises(ValueError, match="must hold no password"):
        small_spec(storage={"path": path})


def test_study_in_a_file_of_another_machine_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"file://{tmp_path}/storage"
    folder = new_folder("a", storage=url)
    folder.save_spec(small_spec())
    create_study(begin_store(small_spec(), folder), small_spec(), RandomSampler())
    assert store_of(find_folder("a", url)).is_there()
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    with pytest.raises(SweepError, match="a file on the machine that began it"):
        store_of(find_folder("a", url))


def test_files_are_found_on_a_machine_that_keeps_them_elsewhere(url: str, tmp_path: Path) -> None:
    weights = tmp_path / "weights.pt"
    weights.write_text("made here")
    shipped = Path(fsdet.__file__).parent / "checkpoints" / "stage1_openmoji.pt"
    spec = small_spec(
        fixed={"yolo_weights": str(weights), "data_root": str(tmp_path)},
        space={"resume": {"choices": [str(shipped)]}},
    )
    folder = new_folder("a", storage=url)
    places = ship(spec, folder)
    folder.save_spec(spec, places)
    assert places[str(shipped)] == "package:fsdet/checkpoints/stage1_openmoji.pt"
    assert read_in_place(spec) == [str(tmp_path)]
    weights.unlink()
    config = build_config({"yolo_weights": weights, "resume": shipped, "data_root": tmp_path})
    settled = settle(config, places, Path("/nowhere"), folder.url)
    assert settled.yolo_weights is not None
    assert settled.yolo_weights.read_text() == "made here"
    assert (settled.resume, settled.data_root) == (shipped, tmp_path)
    again = find_folder("a", url).load_spec()
    assert again.space["resume"].choices == (str(shipped),)
    assert Path(again.fixed["yolo_weights"]).read_text() == "made here"


def test_scratch_folder_of_another_user_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = scratch()
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.rmdir()
    mine.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="belongs to another user"):
        scratch()
