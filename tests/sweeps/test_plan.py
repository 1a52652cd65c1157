"""`--check`: the sweep as understood, and what prevents it from running here."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from sweeps.run import main

SWEEP = """
name: small
space: {lr: {low: 0.001, high: 0.1, log: true}}
baselines: {before: {lr: 0.01}}
fixed: {stage: 2, epochs: 2}
trials: 3
scheduler: {name: none}
resources: {cpus: 1, gpus: 0}
"""


@pytest.fixture(autouse=True)
def sweep_file(in_own_folder: Path) -> None:
    Path("small.yaml").write_text(SWEEP)


def yolo(folder: Path, classes: int, labels: bool = True) -> None:
    """A YOLO dataset with two images of each class."""
    names = [f"thing{number}" for number in range(classes)]
    for part in ("train", "val"):
        (folder / "images" / part).mkdir(parents=True)
        (folder / "labels" / part).mkdir(parents=True)
        for number in range(classes):
            image = np.full((64, 64, 3), number * 9, np.uint8)
            cv2.imwrite(str(folder / "images" / part / f"{number}.jpg"), image)
            text = f"{number} 0.5 0.5 0.5 0.5\n" if labels else ""
            (folder / "labels" / part / f"{number}.txt").write_text(text)
    (folder / "data.yaml").write_text(
        f"path: {folder}\ntrain: images/train\nval: images/val\nnames: {json.dumps(names)}\n"
    )


def test_a_file_name_needs_no_yaml_and_nothing_is_wrong(capsys):
    assert main(["small", "--check"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("sweep small (small.yaml)")
    assert out.endswith("\nthe check found no mistake; nothing was started\n")


def test_what_prevents_it_here_is_counted_and_the_code_is_1(capsys):
    assert main(["small", "--check", "--set", "resources.cpus=999"]) == 1
    assert capsys.readouterr().out.endswith("\n1 problem on this machine; nothing was started\n")
    both = ["resources.cpus=999", "dataset=yolo", "data_root=null", "resume=null"]
    assert main(["small", "--check", *(word for one in both for word in ("--set", one))]) == 1
    end = "2 keys to fill in, 1 problem on this machine; nothing was started\n"
    assert capsys.readouterr().out.endswith(end)


def test_the_plan_as_json(capsys):
    assert main(["small", "--check", "--json", "--set", "resources.cpus=999"]) == 1
    told = capsys.readouterr()
    plan = json.loads(told.out)
    assert (plan["name"], plan["trials"], plan["at_once"]) == ("small", 3, 0)
    assert plan["space"] == {"lr": "0.001 to 0.1, log"}
    assert len(plan["problems"]) == 1
    assert "1 problem on this machine" in told.err


@pytest.mark.parametrize("confirm", [[], ["--set", "confirm.seeds=3"]])
def test_a_dataset_with_too_few_novel_classes_is_found(capsys, tmp_path, confirm):
    yolo(tmp_path / "few", classes=6)
    words = ["dataset=yolo", f"data_root={tmp_path / 'few'}", "n_way=3"]
    code = main(["small", "--check", *(w for one in words for w in ("--set", one)), *confirm])
    assert code == 2
    error = capsys.readouterr().err
    assert "needs n_way = 3 classes, but split 'val' shows 2 of 2" in error
    assert error.count("\n") == 1


def test_too_many_classes_an_episode_for_the_embedded_data_are_found(capsys):
    assert main(["small", "--check", "--set", "n_way=64"]) == 2
    assert "needs n_way = 64 classes, but split 'val' shows 60 of 60" in capsys.readouterr().err


def test_a_dataset_without_labels_is_called_that(capsys, tmp_path):
    yolo(tmp_path / "bare", classes=6, labels=False)
    words = ["dataset=yolo", f"data_root={tmp_path / 'bare'}"]
    assert main(["small", "--check", *(w for one in words for w in ("--set", one))]) == 2
    assert f"no labels in {tmp_path / 'bare'}: 12 images, 0 boxes" in capsys.readouterr().err
