"""Every rule of `fsdet.data.problems`, each with really broken files."""

import json
import logging
import os
from functools import partial

import numpy as np
import pytest
from made_up_data import (
    NAMES,
    config,
    load_annotated,
    write_coco,
    write_refdet,
    write_video,
    write_yolo,
)
from PIL import Image

from fsdet.data.images import MAX_PIXELS
from fsdet.data.problems import RULES, Problem, Problems, log_report
from fsdet.data.sources import (
    load_image_set,
    load_problems,
    log_problems,
)
from fsdet.errors import DataError


@pytest.fixture
def yolo(tmp_path):
    return write_yolo(tmp_path / "shapes")


@pytest.fixture
def coco(tmp_path):
    return write_coco(tmp_path / "shapes")


@pytest.fixture
def refdet(tmp_path):
    return write_refdet(tmp_path / "videos")


def found(root, dataset="yolo", **settings) -> dict[str, Problem]:
    return {p.kind: p for p in load_annotated(config(root, dataset, **settings)).problems}


def write_label(root, text, number=0):
    (root / "labels" / "train" / f"{number:03}.txt").write_text(text)


def labels_of(root, number=0) -> list[int]:
    data = load_annotated(config(root))
    return data.objects.labels[data.objects.records == number].tolist()


def test_a_sound_dataset_has_no_problem(yolo):
    assert not found(yolo, k_shot=3)


@pytest.mark.parametrize("how", ["cut", "text", "empty"])
def test_an_unreadable_image_is_left_out_with_its_objects(yolo, how):
    file = yolo / "images" / "train" / "004.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(file)
    content = {"cut": file.read_bytes()[:9000], "text": b"no image", "empty": b""}[how]
    file.write_bytes(content)
    problem = found(yolo)["image unreadable"]
    assert (problem.count, problem.places) == (1, ("images/train/004.png",))
    assert not labels_of(yolo, 4)
    train = load_image_set(config(yolo), "train")
    assert len(train) == 31
    assert (train.image(4) == train.images[train.rows[4]]).all()


def test_a_cut_jpeg_is_left_out(yolo):
    file = yolo / "images" / "train" / "040.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    assert found(yolo)["image unreadable"].places == ("images/train/040.jpg",)


def test_a_broken_image_is_still_reported_from_a_warm_cache(yolo):
    (yolo / "images" / "train" / "004.png").write_bytes(b"no image")
    assert found(yolo, n_way=2) == found(yolo, n_way=3)
    assert "image unreadable" in found(yolo, n_way=3)


@pytest.mark.timeout(60)  # a named pipe waits for a writer for ever
def test_a_named_pipe_among_the_images_is_left_out(yolo):
    for name in ("004.png", "040.jpg"):
        (yolo / "images" / "train" / name).unlink(missing_ok=True)
        os.mkfifo(yolo / "images" / "train" / name)
    assert found(yolo)["image unreadable"].places == (
        "images/train/004.png",
        "images/train/040.jpg",
    )
    assert len(load_image_set(config(yolo), "train")) == 31


@pytest.mark.timeout(60)
def test_a_named_pipe_among_the_labels_is_named(yolo):
    (yolo / "labels" / "train" / "004.txt").unlink()
    os.mkfifo(yolo / "labels" / "train" / "004.txt")
    with pytest.raises(DataError, match=r"004\.txt: cannot be read \(not a regular file\)"):
        load_annotated(config(yolo))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("dataset", ["coco", "refdet"])
def test_a_named_pipe_among_the_files_of_another_format_does_not_block(tmp_path, dataset):
    root = (write_coco if dataset == "coco" else write_refdet)(tmp_path / "data")
    photos = [*root.rglob("*.png"), *root.rglob("*.jpg")]
    photo = min(photos, key=lambda path: "object_images" not in path.parts)
    annotations = next(iter(sorted(root.rglob("*.json"))))
    photo.unlink()
    os.mkfifo(photo)
    load = partial(load_annotated, config(root, dataset))
    if dataset == "coco":
        load()
    else:
        with pytest.raises(DataError, match="cannot be read"):
            [load_image_set(config(root, dataset), split) for split in ("train", "val", "test")]
    annotations.unlink()
    os.mkfifo(annotations)
    with pytest.raises(DataError, match=r"annotations|instances"):
        load()


def test_an_image_of_too_many_pixels_is_left_out(yolo):
    file = yolo / "images" / "train" / "004.png"
    Image.new("P", (9000, 9000)).save(file)
    problem = found(yolo)["image unreadable"]
    assert problem.places == ("images/train/004.png",)
    assert "or larger than 65 megapixels" in str(problem)
    assert round(MAX_PIXELS / 1e6) == 65


def test_half_of_the_images_unreadable_is_the_most(yolo):
    files = sorted((yolo / "images").rglob("*.png"))
    for file in files[:32]:
        file.write_bytes(b"no image")
    assert found(yolo)["image unreadable"].count == 32
    files[32].write_bytes(b"no image")
    with pytest.raises(DataError, match="33 of 64 images cannot be read, more than half"):
        load_annotated(config(yolo, n_way=3))


def test_a_second_copy_of_an_image_is_left_out(yolo):
    content = (yolo / "images" / "train" / "003.png").read_bytes()
    (yolo / "images" / "train" / "005.png").write_bytes(content)
    problems = found(yolo)
    assert problems["image twice"].places == ("images/train/005.png",)
    assert not labels_of(yolo, 5)
    assert labels_of(yolo, 3)


@pytest.mark.parametrize("suffix", ["bmp", "tif"])
def test_uncompressed_images_with_one_background_are_not_copies(yolo, suffix):
    """They differ in a few bytes of a megabyte."""
    for number in range(40, 44):
        picture = Image.new("RGB", (640, 640), "white")
        picture.paste((10, number, 10), (300, 310, 330, 330))
        picture.save(yolo / "images" / "train" / f"{number:03}.{suffix}")
    assert "image twice" not in found(yolo)
    train = load_image_set(config(yolo), "train")
    assert len(train) == len({*train.rows}) == 36


def test_an_image_in_both_parts_is_kept_and_told(yolo):
    content = (yolo / "images" / "train" / "003.png").read_bytes()
    (yolo / "images" / "val" / "003.png").write_bytes(content)
    assert found(yolo)["image in both parts"].places == ("images/val/003.png",)
    train, base = (load_image_set(config(yolo), split) for split in ("train", "base"))
    assert len(train) == len(base) == 32
    assert train.rows[3] == base.rows[3]


def test_the_same_images_for_training_and_evaluation_never_search_themselves(yolo):
    text = (yolo / "data.yaml").read_text().replace("images/val", "images/train")
    (yolo / "data.yaml").write_text(text)
    assert found(yolo)["image in both parts"].count == 32
    base = load_image_set(config(yolo), "base")
    assert (base.support_images >= 0).all()
    for label in range(base.n_classes):
        assert all(label in base.objects(int(i))[1] for i in base.origins(label))


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_an_empty_label_file_is_a_background(yolo, text):
    write_label(yolo, text)
    assert found(yolo)["label file empty"].places == ("labels/train/000.txt",)
    train = load_image_set(config(yolo), "train")
    assert len(train) == 32
    assert len(train.objects(0)[1]) == 0


def test_a_missing_label_file_is_a_background(yolo):
    (yolo / "labels" / "train" / "000.txt").unlink()
    assert found(yolo)["label file missing"].count == 1
    assert len(load_image_set(config(yolo), "train")) == 32


def test_labels_without_image_are_told(yolo):
    (yolo / "labels" / "train" / "999.txt").write_text("0 .5 .5 .1 .1\n")
    assert found(yolo)["label file without image"].places == ("labels/train/999.txt",)


@pytest.mark.parametrize(
    "line",
    ["3 0.5 0.5 0.1", "dog 0.5 0.5 0.1 0.1", "3,0.5,0.5,0.1,0.1", "2.5 .5 .5 .1 .1", "nan 1 1 1 1"],
)
def test_a_malformed_line_is_left_out_and_named(yolo, line):
    write_label(yolo, f"1 0.5 0.5 0.5 0.5\n{line}\n2 0.5 0.5 0.5 0.5\n")
    assert found(yolo)["label line malformed"].places == ("labels/train/000.txt:2",)
    assert labels_of(yolo) == [1, 2]


def test_a_label_file_that_is_a_folder_is_refused(yolo):
    file = yolo / "labels" / "train" / "000.txt"
    file.unlink()
    file.mkdir()
    with pytest.raises(DataError, match=r"train/000\.txt: cannot be read \(Is a directory\)"):
        load_annotated(config(yolo))


def test_a_list_of_images_that_is_no_text_is_refused(yolo):
    (yolo / "list.txt").write_bytes(b"\xff\xfe./images/train/000.png\n")
    text = (yolo / "data.yaml").read_text().replace("images/train", "list.txt")
    (yolo / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=r"list\.txt: must list images as UTF-8 text"):
        load_annotated(config(yolo))


def test_a_label_file_that_is_no_text_is_told(yolo):
    (yolo / "labels" / "train" / "000.txt").write_bytes(b"\xff\xfe\x00")
    assert found(yolo)["label line malformed"].count == 1


@pytest.mark.parametrize("label", ["16", "-1", "1000000", "1e30", "-1e30"])
def test_an_unknown_class_is_left_out(yolo, label):
    write_label(yolo, f"{label} 0.5 0.5 0.5 0.5\n2 0.5 0.5 0.5 0.5\n")
    assert found(yolo)["class unknown"].count == 1
    assert labels_of(yolo) == [2]


@pytest.mark.parametrize(
    ("box", "kind"),
    [
        ("nan 0.5 0.5 0.5", "box not finite"),
        ("0.5 0.5 inf 0.5", "box not finite"),
        ("1.6 0.5 0.5 0.5", "box outside"),
        ("0.5 -0.3 0.5 0.5", "box outside"),
        ("0.5 0.5 0 0.5", "box without area"),
        ("0.5 0.5 0.005 0.5", "box without area"),
        ("0.5 0.5 -0.5 0.5", "box without area"),
    ],
)
def test_an_unusable_box_is_left_out(yolo, box, kind):
    write_label(yolo, f"1 {box}\n2 0.5 0.5 0.5 0.5\n")
    problem = found(yolo)[kind]
    assert (problem.count, problem.places) == (1, ("images/train/000.png",))
    assert labels_of(yolo) == [2]


def test_a_box_across_the_border_is_cut(yolo):
    write_label(yolo, "3 0.0 0.5 0.5 0.5\n")
    assert found(yolo)["box across the border"].count == 1
    data = load_annotated(config(yolo))
    np.testing.assert_allclose(data.objects.boxes[0], [0, 16, 24, 48])


def test_a_box_beyond_the_border_by_rounding_is_not_counted(yolo):
    write_label(yolo, "3 0.25 0.5 0.501 0.5\n")
    assert "box across the border" not in found(yolo)


def test_a_class_with_fewer_than_k_instances_keeps_what_it_has(yolo):
    problems = found(yolo, k_shot=5)
    assert problems["class with fewer than K instances"].count == 16
    train = load_image_set(config(yolo, k_shot=5), "train")
    assert (train.support_counts == 4).all()
    for label in range(train.n_classes):
        assert len(set(train.origins(label).tolist())) == 4
        assert train.support_images[label, 4] in train.origins(label)


def test_a_class_without_instance_is_left_out(yolo):
    for file in (yolo / "labels").rglob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if line.split()[0] != "7"]
        file.write_text("".join(f"{line}\n" for line in lines))
    data = load_annotated(config(yolo))
    assert 7 not in {*data.split.base, *data.split.novel}
    named = config(yolo, novel_classes=(NAMES[7], NAMES[8]), n_way=2)
    assert "class without instance" in {p.kind for p in load_annotated(named).problems}
    with pytest.raises(DataError, match="shows 1 of 2"):
        load_image_set(named, "val")


def test_too_few_classes_for_an_episode(yolo):
    with pytest.raises(DataError, match="n_way = 3 classes, but split 'train' shows 2"):
        load_image_set(config(yolo, n_way=3, base_classes=(NAMES[0], NAMES[1])), "train")


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


TRAIN = ("annotations", "instances_train2017.json")


def break_annotation(**values):
    def edit(content):
        content["annotations"][0].update(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "kind"),
    [
        (break_annotation(bbox=None), "annotation malformed"),
        (break_annotation(bbox=[1, 2]), "annotation malformed"),
        (break_annotation(bbox=[0, 0, 10**400, 5]), "annotation malformed"),
        (break_annotation(bbox="here"), "annotation malformed"),
        (break_annotation(image_id=[7]), "annotation malformed"),
        (break_annotation(image_id=12345), "annotation malformed"),
        (break_annotation(category_id=2), "class unknown"),
        (break_annotation(iscrowd=1), "crowd"),
        (break_annotation(bbox=[0, 0, -5, 5]), "box without area"),
        (break_annotation(bbox=[float("nan"), 0, 5, 5]), "box not finite"),
        (break_annotation(bbox=[500, 0, 5, 5]), "box outside"),
    ],
)
def test_a_broken_coco_annotation_is_left_out(coco, edit, kind):
    sound = len(load_annotated(config(coco, "coco", k_shot=3)).objects.labels)
    change(coco.joinpath(*TRAIN), edit)
    data = load_annotated(config(coco, "coco", k_shot=3, n_way=3))
    assert [p.kind for p in data.problems] == [kind]
    assert data.problems[0].count == 1
    assert len(data.objects.labels) == sound - 1


def test_an_image_that_is_missing_is_told(coco):
    (coco / "train2017" / "005.png").unlink()
    (coco / "val2017" / "005.png").unlink()
    problem = found(coco, "coco")["image missing"]
    assert (problem.count, problem.places) == (2, ("005.png",))


def test_an_image_of_another_size_than_annotated_is_left_out(coco):
    change(coco.joinpath(*TRAIN), lambda content: content["images"][0].update(width=95))
    assert found(coco, "coco")["image of another size"].places == ("train2017/000.png",)
    assert len(load_image_set(config(coco, "coco"), "train")) == 31


@pytest.mark.parametrize("width", [float("inf"), float("nan"), None, "wide"])
def test_an_image_without_a_sensible_size_is_told(coco, width):
    change(coco.joinpath(*TRAIN), lambda content: content["images"][0].update(width=width))
    problem = found(coco, "coco")["annotation malformed"]
    assert problem.count == 1
    assert problem.places[0].startswith("instances_train2017.json: image {'id': 0,")
    assert len(load_image_set(config(coco, "coco"), "train")) == 31


def test_images_of_one_id_are_left_out_with_the_objects_of_either(coco):
    change(coco.joinpath(*TRAIN), lambda content: content["images"][1].update(id=0))
    problem = found(coco, "coco", k_shot=3)["image id twice"]
    assert problem.count == 2
    assert problem.places == (
        "instances_train2017.json: 000.png",
        "instances_train2017.json: 001.png",
    )
    assert len(load_image_set(config(coco, "coco"), "train")) == 30


def test_an_image_listed_twice_is_one_image(coco):
    change(
        coco.joinpath(*TRAIN), lambda content: content["images"].append(dict(content["images"][4]))
    )
    problems = found(coco, "coco", k_shot=3)
    assert {kind: p.places for kind, p in problems.items()} == {
        "image twice": ("train2017/004.png",)
    }
    train = load_image_set(config(coco, "coco", novel_classes=NAMES[:2]), "train")
    assert len(train.objects(4)[1]) == 2


def test_an_entry_that_is_no_image_is_told(coco):
    change(coco.joinpath(*TRAIN), lambda content: content["images"].append({"id": 77}))
    assert found(coco, "coco")["annotation malformed"].count == 1


def test_a_broken_video_is_left_out(refdet):
    (refdet / "samples" / "video_0" / "drone_video.mp4").write_bytes(b"no video")
    assert found(refdet, "refdet")["video unreadable"].places == ("video_0",)
    assert len(load_annotated(config(refdet, "refdet")).dataset.names) == 3


def test_annotations_of_an_unknown_video_are_left_out(refdet):
    change(
        refdet / "annotations.json",
        lambda content: content.append({**content[0], "video_id": "elsewhere"}),
    )
    assert found(refdet, "refdet")["video missing"].places == ("elsewhere",)


def test_a_video_without_annotation_is_left_out(refdet):
    change(refdet / "annotations.json", lambda content: content.pop())
    assert found(refdet, "refdet")["video without annotation"].places == ("video_3",)


def test_a_video_without_photos_of_its_object_is_left_out(refdet):
    for photo in (refdet / "samples" / "video_1" / "object_images").iterdir():
        photo.unlink()
    assert found(refdet, "refdet")["video without object images"].places == ("video_1",)


def test_frames_beyond_the_end_are_left_out(refdet):
    write_video(refdet / "samples" / "video_2" / "drone_video.mp4", 20, 2)
    problem = found(refdet, "refdet")["frame beyond the end"]
    assert (problem.count, problem.places) == (5, ("samples/video_2/drone_video.mp4",))


def test_a_broken_photo_is_left_out_and_told_once(refdet, caplog):
    for video in ("video_0", "video_1"):
        (refdet / "samples" / video / "object_images" / "0.jpg").write_bytes(b"no image")
    settings = config(refdet, "refdet", novel_classes=("video_0",), n_way=2)
    with caplog.at_level(logging.WARNING, "fsdet.data"):
        for split in ("train", "base"):
            assert load_image_set(settings, split).support_counts.tolist() == [2, 3, 3]
        assert not caplog.records
        log_problems(settings)
    (told,) = caplog.records
    assert "object image unreadable: 2" in told.getMessage()
    for video in ("video_0", "video_1"):
        assert told.getMessage().count(f"samples/{video}/object_images/0.jpg") == 1
    assert load_problems(settings)[0].count == 2


def test_a_photo_that_cannot_be_read_ends_with_its_name(refdet):
    photo = refdet / "samples" / "video_1" / "object_images" / "0.jpg"
    photo.unlink()
    photo.mkdir()
    with pytest.raises(DataError, match=r"video_1/object_images/0\.jpg: cannot be read"):
        load_problems(config(refdet, "refdet"))


def test_a_copy_of_a_video_is_left_out_even_where_one_is_base_and_one_novel(refdet):
    folders = [refdet / "samples" / f"video_{label}" for label in (0, 3)]
    (folders[1] / "drone_video.mp4").write_bytes((folders[0] / "drone_video.mp4").read_bytes())
    settings = config(refdet, "refdet", novel_classes=("video_0",), n_way=2)
    data = load_annotated(settings)
    assert "image twice" in {p.kind for p in data.problems}
    assert 3 not in data.objects.labels
    assert {0, 1, 2} == {*data.objects.labels.tolist()}


@pytest.mark.parametrize(
    "entry", [{"frame": -1, "x1": 0, "y1": 0, "x2": 9, "y2": 9}, {"frame": 7}, {"frame": "x"}, 3]
)
def test_a_malformed_annotation_of_a_video_is_left_out(refdet, entry):
    change(
        refdet / "annotations.json",
        lambda content: content[0]["annotations"][0]["bboxes"].append(entry),
    )
    assert found(refdet, "refdet")["annotation malformed"].count == 1


def test_the_report_is_one_warning_that_names_files_and_rules(yolo, caplog):
    write_label(yolo, "99 0.5 0.5 0.5 0.5\n")
    with caplog.at_level(logging.WARNING, "fsdet.data"):
        for split in ("train", "base", "val", "train"):
            load_image_set(config(yolo), split)
        assert not caplog.records
        log_problems(config(yolo))
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "class unknown: 1 (images/train/000.png): object left out" in told[0]


def test_only_the_first_files_are_named_and_all_are_counted():
    problems = Problems()
    for number in range(9):
        problems.add("image unreadable", f"{number}.png")
    (problem,) = problems.report()
    assert problem.count == 9
    assert problem.places == ("0.png", "1.png", "2.png")
    assert RULES["image unreadable"] in str(problem)


def test_nothing_broken_is_nothing_said(caplog):
    log_report("a dataset", ())
    assert not caplog.records
