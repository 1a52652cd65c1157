"""A dataset of three classes: one object to find, with `n_way` 1 and without the swap control."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from made_up_data import write_refdet, write_yolo

import fsdet
from fsdet.config import TrainConfig
from fsdet.data.sources import check_data, load_image_set
from fsdet.errors import DataError
from fsdet.evaluate import main as evaluate
from fsdet.export import export
from fsdet.health.checklist import health_of_run
from fsdet.report import NO_SWAP_CONTROL
from fsdet.train import train

SWAP = ("swap", "swapped")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Rectangles of three classes."""
    folder = write_yolo(tmp_path / "shapes")
    for file in folder.glob("labels/*/*.txt"):
        lines = [line.split(maxsplit=1) for line in file.read_text().splitlines()]
        file.write_text("".join(f"{int(label) % 3} {box}\n" for label, box in lines))
    description = yaml.safe_load((folder / "data.yaml").read_text())
    names = ["cup", "hat", "pen"]
    (folder / "data.yaml").write_text(yaml.safe_dump({**description, "names": names}))
    return folder


@pytest.fixture
def settings(
    root: Path, small_config: Callable[..., TrainConfig], tmp_path: Path
) -> Callable[..., TrainConfig]:
    """Builds a config for them."""
    torch.set_num_threads(1)

    def build(**values: object) -> TrainConfig:
        own = {"dataset": "yolo", "data_root": root, "n_way": 1, "cache_dir": tmp_path / "cache"}
        return small_config(**{**own, **values})

    return build


def test_two_ways_are_refused_with_a_cure_that_helps(settings):
    splits = ("train", "val")
    with pytest.raises(DataError, match=r"'val' shows 1 of 1 .*; set n_way: 1, or add images or"):
        check_data(settings(n_way=2), splits)
    with pytest.raises(DataError, match=r"'val' shows 1 of 1 .*; set n_way: 1, or add images or"):
        load_image_set(settings(n_way=2), "val")
    check_data(settings(), splits)
    assert load_image_set(settings(), "val").n_classes == 1


def test_a_class_without_a_second_image_cannot_be_searched_at_all(settings, root):
    for file in root.glob("labels/*/*.txt"):
        kept = [line for line in file.read_text().splitlines() if line[0] != "0"]
        file.write_text("\n".join(kept))
    with pytest.raises(DataError, match=r"n_way = 1 .* shows 0 of 1 .*another image; add images"):
        check_data(settings(novel_classes=["cup"]), ("val",))


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_one_object_is_trained_and_evaluated(settings, stage, caplog):
    result = train(settings(stage=stage, epochs=1))
    assert result.steps > 0
    assert "val/nAP50" in result.metrics
    assert not [name for name in result.metrics if any(word in name for word in SWAP)]
    assert f"swap control {NO_SWAP_CONTROL}" in caplog.text
    if stage > 1:
        check = health_of_run(result.run_dir).check("supports")
        assert (check.status, check.message) == ("skip", f"swap control {NO_SWAP_CONTROL}")


def test_export_prediction_and_evaluation_follow(settings, root, tmp_path, monkeypatch, capsys):
    result = train(settings(epochs=1))
    facts = export(result.run_dir, tmp_path / "small.pt")
    assert not [name for name in facts["metrics"] if any(word in name for word in SWAP)]
    found = fsdet.load(tmp_path / "small.pt", "cpu").detect(
        root / "images" / "val" / "000.png", [root / "images" / "train" / "000.png"], 0
    )
    assert found.names == ("object",)
    flags = ["--checkpoint", str(tmp_path / "small.pt"), "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["evaluate", *flags])
    assert evaluate() == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"swap control {NO_SWAP_CONTROL}" in told


def test_two_videos_are_enough(small_config, tmp_path):
    """One to learn from, and one to find."""
    root = write_refdet(tmp_path / "videos")
    folders = sorted((root / "samples").iterdir())
    assert len(folders) > 2
    for folder in folders[2:]:
        for file in sorted(folder.rglob("*"), reverse=True):
            file.rmdir() if file.is_dir() else file.unlink()
        folder.rmdir()
    own = {"dataset": "refdet", "data_root": root, "cache_dir": tmp_path / "cache", "n_way": 1}
    assert train(small_config(**own, epochs=1)).steps > 0
