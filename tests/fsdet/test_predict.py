import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from made_up_checkpoint import made_up_content
from PIL import Image
from pycocotools.coco import COCO

import fsdet
from fsdet.checkpoint.content import load_checkpoint, save_checkpoint
from fsdet.config import TrainConfig
from fsdet.data.openmoji import load_openmoji
from fsdet.inference.video import VideoWriter
from fsdet.models.postprocess import SCORE_THRESHOLD
from fsdet.predict import main

STAGE_1 = Path(__file__).parents[2] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


@pytest.fixture
def files(small_data: Path, tmp_path: Path) -> Path:
    """Two scenes, a video of ten frames, and supports of two classes."""
    scenes = load_openmoji(TrainConfig(), "val")
    for folder in ("scenes", "supports/cup", "supports/hat"):
        (tmp_path / folder).mkdir(parents=True)
    Image.fromarray(scenes.image(0)).save(tmp_path / "scenes" / "a.png")
    Image.fromarray(scenes.image(1)).resize((300, 200)).save(tmp_path / "scenes" / "b.jpg")
    with VideoWriter(tmp_path / "clip.mp4", 10) as writer:
        for _ in range(10):
            writer.write(scenes.image(2))
    for label, name in enumerate(("cup", "hat")):
        for variant in range(3):
            picture = Image.fromarray(np.asarray(scenes.supports[label, variant]))
            picture.save(tmp_path / "supports" / name / f"{variant}.png")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, **flags: object) -> int:
    arguments = [
        part
        for name, value in ({"checkpoint": STAGE_1, "device": "cpu"} | flags).items()
        for part in (f"--{name}", *(value if isinstance(value, list) else [value]))
    ]
    monkeypatch.setattr("sys.argv", ["predict", *map(str, arguments)])
    return main()


def test_pictures_and_videos_in_annotated_copies_and_coco_out(files, monkeypatch, capsys):
    out = files / "out"
    inputs = [files / "scenes", files / "clip.mp4"]
    code = run(
        monkeypatch, supports=files / "supports", images=inputs, out=out, score_threshold=0.02
    )
    assert code == 0
    assert "images: 2, videos: 1, detections of cup, hat: " in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == [
        "a.png",
        "b.jpg",
        "clip.mp4",
        "detections.json",
    ]

    results = COCO(str(out / "detections.json"))
    images = results.loadImgs(results.getImgIds())
    assert [(i["width"], i["height"]) for i in images] == [(128, 128), (300, 200)] + 10 * [
        (128, 128)
    ]
    assert [i.get("frame") for i in images] == [None, None, *range(10)]
    assert {c["name"] for c in results.loadCats(results.getCatIds())} == {"cup", "hat"}
    assert {a["category_id"] for a in results.dataset["annotations"]} == {1, 2}
    assert min(a["score"] for a in results.dataset["annotations"]) >= 0.02

    video = cv2.VideoCapture(str(out / "clip.mp4"))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 10
    assert video.get(cv2.CAP_PROP_FPS) == 10
    assert not np.array_equal(np.asarray(Image.open(out / "a.png").resize((128, 128))),
                              np.asarray(Image.open(files / "scenes" / "a.png")))  # fmt: skip


def test_the_command_and_the_api_find_the_same(files, monkeypatch):
    supports = sorted((files / "supports" / "cup").iterdir())
    scene = files / "scenes" / "b.jpg"
    run(monkeypatch, supports=supports, images=scene, out=files / "out", score_threshold=0.02)
    written = json.loads((files / "out" / "detections.json").read_text())
    found = fsdet.load(STAGE_1, "cpu").detect(scene, supports, score_threshold=0.02)
    assert found.names == ("object",) == tuple(c["name"] for c in written["categories"])
    assert [a["score"] for a in written["annotations"]] == pytest.approx(
        found.scores.tolist(), abs=1e-5
    )
    x1, y1, width, height = written["annotations"][0]["bbox"]
    assert (x1, y1, x1 + width, y1 + height) == pytest.approx(found.boxes[0].tolist(), abs=0.02)


def test_two_inputs_of_one_name_have_two_copies(files, monkeypatch):
    again = files / "again"
    again.mkdir()
    (again / "a.png").write_bytes((files / "scenes" / "a.png").read_bytes())
    inputs = [files / "scenes" / "a.png", again / "a.png"]
    assert run(monkeypatch, supports=files / "supports", images=inputs, out=files / "out") == 0
    assert {p.name for p in (files / "out").iterdir()} == {"a.png", "a_2.png", "detections.json"}


def test_a_bad_picture_or_video_costs_no_more_than_itself(files, monkeypatch, capsys):
    (files / "scenes" / "0_broken.png").write_text("no picture")
    (files / "broken.mp4").write_text("no video")
    inputs = [files / "scenes", files / "broken.mp4", files / "clip.mp4"]
    assert run(monkeypatch, supports=files / "supports", images=inputs, out=files / "out") == 1
    told = capsys.readouterr()
    assert "images: 2, videos: 1, " in told.out
    assert told.out.endswith("; skipped: 2\n")
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert "0_broken.png: cannot be decoded as an image" in errors[0]
    assert "broken.mp4: no frame of it can be decoded" in errors[1]
    written = json.loads((files / "out" / "detections.json").read_text())
    names = [Path(image["file_name"]).name for image in written["images"]]
    assert names == ["a.png", "b.jpg"] + 10 * ["clip.mp4"]
    copies = {path.name for path in (files / "out").iterdir()}
    assert copies == {"a.png", "b.jpg", "clip.mp4", "detections.json"}


def test_where_nothing_can_be_searched_every_input_is_named(files, monkeypatch, capsys):
    for name in ("one.png", "two.png"):
        (files / name).write_text("no picture")
    inputs = [files / "one.png", files / "two.png", files / "one.png"]
    assert run(monkeypatch, supports=files / "supports", images=inputs, out=files / "out") == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert [Path(line.split(":")[1].strip()).name for line in told.err.splitlines()[-2:]] == [
        "one.png",
        "two.png",
    ]
    assert not (files / "out" / "detections.json").exists()


def test_help_gives_the_exit_codes(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["predict", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert "1 if some were skipped" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"images": "nowhere.png"}, "nowhere.png: no such file or folder"),
        ({"images": "broken.png"}, "broken.png: cannot be decoded as an image"),
        ({"images": "broken.mp4"}, "broken.mp4: no frame of it can be decoded"),
        ({"images": "empty"}, "empty: holds none of"),
        ({"supports": "empty"}, "empty: holds none of"),
        ({"supports": "broken.png"}, "broken.png: cannot be decoded as an image"),
        ({"supports": []}, "supports: at least one path is needed"),
        ({"out": "scenes"}, "a.png is an input and would be replaced"),
        ({"out": "broken.png"}, "broken.png cannot be created"),
        ({"score_threshold": 1.5}, "score_threshold: must lie in 0 … 1, but got 1.5"),
        ({"checkpoint": "nowhere.pt"}, "nowhere.pt: checkpoint: no such checkpoint"),
        ({"checkpoint": "broken.png"}, "broken.png: "),
        ({"device": "cuda:99"}, "device: 'cuda:99' cannot be used"),
    ],
)
def test_a_mistake_is_told_in_one_line(files, monkeypatch, capsys, changed, message):
    monkeypatch.chdir(files)
    (files / "empty").mkdir()
    for name in ("broken.png", "broken.mp4"):
        (files / name).write_text("neither a picture nor a video")
    flags = {"supports": "supports", "images": "scenes", "out": "out"}
    assert run(monkeypatch, **(flags | changed)) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert not (files / "out" / "detections.json").exists()


def test_a_link_to_itself_among_the_images_is_skipped(files, monkeypatch, capsys):
    (files / "scenes" / "b.png").symlink_to("b.png")
    flags = {"supports": files / "supports", "images": files / "scenes", "out": files / "out"}
    assert run(monkeypatch, **flags) == 1
    told = capsys.readouterr().err
    assert [line for line in told.splitlines() if line.startswith("error: ")] == [
        f"error: {files / 'scenes' / 'b.png'}: no such file; check the path"
    ]


def test_an_unknown_flag_is_one_line(monkeypatch, capsys):
    assert run(monkeypatch, suports="x") == 2
    told = "error: --suports: no such flag; did you mean 'supports'?; "
    assert capsys.readouterr().err == f"{told}`python -m fsdet.predict --help` lists all flags\n"


def carrying(threshold: object, folder: Path) -> Path:
    """The shipped weights with a score threshold."""
    state = load_checkpoint(STAGE_1)
    torch.save({**state, "score_threshold": threshold}, folder / "best.pt")
    return folder / "best.pt"


@pytest.mark.parametrize("named", ["best.pt", "."])
def test_the_threshold_of_the_checkpoint_is_the_default(files, monkeypatch, capsys, named):
    carrying(0.03, files)
    monkeypatch.chdir(files)
    flags = {"supports": "supports", "images": "scenes", "checkpoint": named, "out": "out"}
    assert run(monkeypatch, **flags) == 0
    told = capsys.readouterr().out
    assert "score threshold 0.030, the best on validation (F1); --score_threshold changes" in told
    found = json.loads((files / "out" / "detections.json").read_text())["annotations"]
    assert found
    assert 0.03 <= min(a["score"] for a in found) < SCORE_THRESHOLD
    again = fsdet.load(named, "cpu").detect("scenes/a.png", ["supports/cup/0.png"])
    assert min(again.scores) >= 0.03
    assert run(monkeypatch, **flags, score_threshold=0.4) == 0
    assert "score threshold" not in capsys.readouterr().out


@pytest.mark.parametrize("threshold", [None, "high", 7.0, float("nan"), True])
def test_without_a_usable_threshold_the_default_is_said(files, monkeypatch, capsys, threshold):
    checkpoint = carrying(threshold, files)
    flags = {"supports": files / "supports", "images": files / "scenes", "out": files / "out"}
    assert run(monkeypatch, **flags, checkpoint=checkpoint) == 0
    assert "score threshold 0.250, the default: the checkpoint carries none" in (
        capsys.readouterr().out
    )


def test_without_detections_the_highest_score_is_said(files, monkeypatch, capsys):
    flags = {"supports": files / "supports", "images": files / "scenes", "out": files / "out"}
    assert run(monkeypatch, **flags, score_threshold=0) == 0
    found = json.loads((files / "out" / "detections.json").read_text())["annotations"]
    highest = max(a["score"] for a in found)
    capsys.readouterr()
    assert run(monkeypatch, **flags, score_threshold=1) == 0
    told = capsys.readouterr().out
    assert f": 0 (highest score: {highest:.3f}, below the threshold 1.000), in " in told


def test_an_example_of_its_own_data_needs_no_files(small_config, monkeypatch, tmp_path, capsys):
    state = load_checkpoint(STAGE_1)
    config = small_config(stage=1, n_way=4, n_shot=3)
    save_checkpoint(tmp_path / "a.pt", made_up_content(config, detector=state["detector"]), config)
    flags = {"checkpoint": tmp_path / "a.pt", "out": tmp_path / "out"}
    monkeypatch.setattr(
        "sys.argv",
        ["predict", "--example", *(str(w) for k, v in flags.items() for w in (f"--{k}", v))],
    )
    assert main() == 0
    told = capsys.readouterr().out
    assert f"example: supports and images in {tmp_path}/out/example\n" in told
    assert re.search(r"images: [3-6], videos: 0, detections of \w", told)
    supports, images = (tmp_path / "out" / "example" / name for name in ("supports", "images"))
    assert [len(list(folder.iterdir())) for folder in supports.iterdir()] == [3, 3, 3]
    # what was written is what a user would give
    first = (tmp_path / "out" / "detections.json").read_text()
    assert run(monkeypatch, **flags, supports=supports, images=images) == 0
    again = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(json.loads(first)["annotations"]) == len(again["annotations"])


@pytest.mark.parametrize("name", ["supports", "images"])
def test_an_example_beside_own_files_is_refused(monkeypatch, capsys, name):
    monkeypatch.setattr(
        "sys.argv", ["predict", "--checkpoint", "x.pt", "--example", f"--{name}", "a.png"]
    )
    assert main() == 2
    assert (
        f"example: brings its own {name}; remove --example or --{name}" in capsys.readouterr().err
    )
