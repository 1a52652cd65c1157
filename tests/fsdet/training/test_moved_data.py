from pathlib import Path

import pytest
import yaml
from made_up_data import NAMES, write_yolo

from fsdet.data.sources import load_image_set
from fsdet.errors import CheckpointError
from fsdet.training.build import build_state

VAL, TEST, BASE = NAMES[:4], NAMES[4:8], NAMES[8:]


def written(file: Path, **splits) -> Path:
    file.write_text(yaml.safe_dump({key: list(names) for key, names in splits.items()}))
    return file


@pytest.fixture
def moved(small_config, tmp_path):
    """Saves a run on a dataset and moves that; resumes the run with other settings."""
    settings = {"dataset": "yolo", "k_shot": 2, "cache_dir": tmp_path / "cache"}
    split_file = written(tmp_path / "split.yaml", val=VAL, test=TEST, base=BASE)
    root = write_yolo(tmp_path / "here")
    config = small_config(**settings, data_root=root, split_file=split_file)
    build_state(config, load_image_set(config, "train"), None).save(tmp_path / "c.pt")
    there = root.rename(tmp_path / "there")
    other_file = written(tmp_path / "same.yaml", val=VAL, test=TEST, base=BASE)

    def resume(**changes):
        now = small_config(**settings, **{"data_root": there, "split_file": other_file, **changes})
        return build_state(now, load_image_set(now, "train"), tmp_path / "c.pt")

    return resume


def test_a_run_resumes_where_its_data_has_moved(moved):
    assert moved().changed == []


def test_a_run_does_not_resume_where_an_annotation_has_changed(moved, tmp_path):
    labels = tmp_path / "there" / "labels" / "train" / "000.txt"
    labels.write_text("\n".join(["9 0.3 0.5 0.2 0.2"]) + "\n")
    with pytest.raises(CheckpointError, match="training data was"):
        moved()


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        ({"val": TEST, "test": VAL, "base": BASE}, "novel data was"),
        ({"val": VAL, "test": TEST, "base": BASE[:-1]}, "training data was"),
    ],
)
def test_a_run_does_not_resume_with_other_classes_in_the_split_file(moved, tmp_path, splits, told):
    with pytest.raises(CheckpointError, match=told):
        moved(split_file=written(tmp_path / "other.yaml", **splits))
