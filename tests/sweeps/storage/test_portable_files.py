"""The files that a sweep names, on a machine that keeps them elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import small_spec

import fsdet
from fsdet.config.parsing import build_config
from sweeps.errors import SweepError
from sweeps.storage.lookup import find_folder, new_folder
from sweeps.storage.portable_files import (
    local_path,
    localize_paths,
    portable_names,
    scratch,
    shared_folders,
)
from sweeps.storage.remote import StorageError


def test_files_are_found_on_a_machine_that_keeps_them_elsewhere(url, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_text("made here")
    shipped = Path(fsdet.__file__).parent / "checkpoints" / "stage1_openmoji.pt"
    spec = small_spec(
        fixed={"yolo_weights": str(weights), "data_root": str(tmp_path)},
        space={"resume": {"choices": [str(shipped)]}},
    )
    folder = new_folder("a", storage=url)
    assert portable_names(spec, folder.path, folder.url, shared=False) == {}
    names = portable_names(spec, folder.path, folder.url, shared=True)
    folder.save_spec(spec, names)
    assert names[str(shipped)] == "package:fsdet/checkpoints/stage1_openmoji.pt"
    assert shared_folders(spec) == [str(tmp_path)]
    weights.unlink()
    config = build_config({"yolo_weights": weights, "resume": shipped, "data_root": tmp_path})
    local = localize_paths(config, names, Path("/nowhere"), folder.url)
    assert local.yolo_weights is not None
    assert local.yolo_weights.read_text() == "made here"
    assert (local.resume, local.data_root) == (shipped, tmp_path)
    again = find_folder("a", url).load_spec()
    assert again.space["resume"].choices == (str(shipped),)
    assert Path(again.fixed["yolo_weights"]).read_text() == "made here"


def test_scratch_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine = scratch()
    assert mine.stat().st_mode & 0o777 == 0o700
    mine.rmdir()
    mine.symlink_to(tmp_path)
    with pytest.raises(StorageError, match="belongs to another user"):
        scratch()


@pytest.mark.parametrize(
    "name",
    [
        "storage:../outside.pt",
        "storage:files/../../outside.pt",
        "storage:/etc/passwd",
        "storage:",
        "package:fsdet/../../outside.pt",
        "package:fsdet//etc/passwd",
        "package:os/path.py",
    ],
)
@pytest.mark.parametrize("at", [None, "s3://bucket/a"])
def test_a_forged_name_leads_nowhere(name, at, tmp_path):
    with pytest.raises(SweepError, match=r"leads out of|there is no such package"):
        local_path(name, tmp_path, at)
