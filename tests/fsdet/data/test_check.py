import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_data import NAMES, colour, write_coco, write_refdet, write_yolo
from PIL import Image, ImageColor
from rich.console import Console

from fsdet.data.__main__ import main
from fsdet.data.check import CheckOptions, check, parse
from fsdet.data.contact_sheet import COLOURS
from fsdet.errors import ConfigError

REPOSITORY = Path(__file__).parents[3]
COCO128 = REPOSITORY.parent / "shared" / "data" / "coco128"


def run(folder: Path, *flags: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fsdet.data", *map(str, flags)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "FSDET_CACHE": "cache"},
    )


WRITERS = {"yolo": write_yolo, "coco": write_coco, "refdet": write_refdet}


@pytest.mark.parametrize("dataset", WRITERS)
def test_a_sound_dataset_is_told_and_drawn(tmp_path, dataset):
    root = WRITERS[dataset](tmp_path / "data")
    done = run(
        tmp_path, "check", "--dataset", dataset, "--data_root", root, "--sheet", "out/sheet.png",
        "--k_shot", 3, "--novel_fraction", 0.5,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for split in ("train", "base", "val", "test", "shots"):
        assert f"\n{split} " in done.stdout
    assert "refused" not in done.stdout
    with Image.open(tmp_path / "out" / "sheet.png") as sheet:
        pixels = {c for _, c in sheet.convert("RGB").getcolors(1 << 24)}
    assert {ImageColor.getrgb(c) for c in COLOURS[:2]} <= pixels
    if dataset != "refdet":
        assert {colour(c) for c in range(8)} & pixels


def test_problems_are_told_with_rule_count_and_files(tmp_path):
    root = write_yolo(tmp_path / "data")
    (root / "images" / "train" / "004.png").write_bytes(b"no image")
    (root / "labels" / "val" / "007.txt").write_text("99 0.5 0.5 0.1 0.1\n")
    done = run(tmp_path, "check", "--dataset", "yolo", "--data_root", root)
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "1 image unreadable: left out with its objects" in told
    assert "images/train/004.png" in told
    assert "1 class unknown: object left out; its class has no name images/val/007.png" in told
    assert (tmp_path / "contact_sheet.png").exists()


def test_broken_photos_are_told_too(tmp_path):
    root = write_refdet(tmp_path / "data")
    (root / "samples" / "video_1" / "object_images" / "0.jpg").write_bytes(b"no image")
    done = run(tmp_path, "check", "--dataset", "refdet", "--data_root", root,
               "--novel_fraction", 0.5)  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "1  object image unreadable: left out" in lines
    assert "samples/video_1/object_images/0.jpg" in lines


@pytest.mark.parametrize("place", ["folder", "file/x.png"])
def test_a_sheet_that_cannot_be_a_file_is_refused_before_anything_is_read(
    tmp_path, monkeypatch, capsys, place
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").touch()
    data = write_yolo(tmp_path / "data", count=2)
    code = main(["check", "--dataset", "yolo", "--data_root", str(data), "--sheet", place])
    assert code == 2
    assert capsys.readouterr().err.startswith("error: sheet: ")


def test_a_refused_dataset_ends_with_one_line(tmp_path):
    root = write_yolo(tmp_path / "data")
    for file in (root / "images").rglob("*.png"):
        file.write_bytes(b"no image")
    done = run(tmp_path, "check", "--dataset", "yolo", "--data_root", root)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    (line,) = [text for text in done.stderr.splitlines() if text.startswith("error:")]
    assert "64 of 64 images cannot be read" in line
    assert not (tmp_path / "contact_sheet.png").exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "error: python -m fsdet.data: the first argument must be check"),
        (("chekc",), "must be check, but got 'chekc'"),
        (("check", "--dataset", "yolo"), "error: data_root: dataset 'yolo' needs"),
        (("check", "--dataset", "yolo", "--data_root", "nowhere"), "data.yaml: no such file"),
        (("check", "--n_shot", "9"), "n_shot must be at most k_shot"),
        (("check", "--config", "missing.yaml"), "missing.yaml: no such file"),
        (("check", "--episodes", "0"), "episodes: must be at least 1"),
        (("check", "--n_wya", "3"), "error: --n_wya: no such flag; did you mean 'n_way'?"),
        (
            ("check", "--episodes", "many"),
            "error: --episodes: must be a whole number, but got 'many'",
        ),
    ],
)
def test_a_mistake_ends_with_code_2_and_its_reason(tmp_path, monkeypatch, capsys, flags, told):
    monkeypatch.chdir(tmp_path)
    assert main(list(flags)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not list(tmp_path.iterdir())


def test_help_tells_how_it_is_used(tmp_path):
    done = run(tmp_path, "check", "--help")
    assert done.returncode == 0
    assert "python -m fsdet.data check" in done.stdout
    assert "--novel_classes" in done.stdout
    assert "--sheet" in done.stdout


def test_flags_go_before_the_file(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("dataset: coco\nk_shot: 5\nlr: 0.5\n")
    options = parse(["--config", str(file), "--k_shot", "7", "--sheet", "x.png"])
    assert (options.config.dataset, options.config.k_shot, options.sheet) == (
        "coco",
        7,
        Path("x.png"),
    )
    file.write_text("k_shto: 5\n")
    with pytest.raises(ConfigError, match="did you mean 'k_shot'"):
        parse(["--config", str(file)])


@pytest.mark.slow
def test_embedded_data_are_drawn_too(small_config, tmp_path):
    console = Console(record=True, width=120)
    check(CheckOptions(small_config(k_shot=3), tmp_path / "sheet.png", 1), console)
    told = console.export_text()
    assert "Problems found" not in told
    assert "\nshots " in told
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10


@pytest.mark.slow
@pytest.mark.skipif(not COCO128.is_dir(), reason="coco128 is not beside the repository")
def test_coco128_is_checked_from_the_command_line(tmp_path):
    done = run(tmp_path, "check", "--dataset", "yolo", "--data_root", COCO128, "--novel_classes",
               "dog", "cat", "chair", "cup", "bowl", "car")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "labels/train2017/000000000656.txt" in done.stdout
    assert (tmp_path / "contact_sheet.png").exists()
    assert NAMES[0] not in done.stdout
