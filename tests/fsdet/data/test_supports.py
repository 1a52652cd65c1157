import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_data import NAMES, colour, config, load_annotated, write_yolo
from PIL import Image

from fsdet.data.cleaning import Objects
from fsdet.data.sources import load_image_set
from fsdet.data.supports import cut, draw_instances


@st.composite
def objects(draw) -> Objects:
    count = draw(st.integers(0, 20))
    numbers = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    sides = np.array(draw(st.lists(st.sampled_from([4, 40]), min_size=count, max_size=count)))
    boxes = np.stack([np.zeros(count), np.zeros(count), sides, sides], axis=1).astype(np.float32)
    records, labels = (np.array(draw(numbers), np.int64) for _ in range(2))
    return Objects(np.sort(records), boxes, labels % 2)


@given(objects(), st.integers(1, 8), st.integers(0, 5))
def test_instances_are_distinct_of_their_class_and_from_different_images_first(found, k, seed):
    chosen = draw_instances(found, 1, k, seed, np.ones(6, bool))
    images = found.records[chosen].tolist()
    available = set(found.records[found.labels == 1].tolist())
    assert len(set(chosen.tolist())) == len(chosen) == min(k, int((found.labels == 1).sum()))
    assert (found.labels[chosen] == 1).all()
    assert len(set(images)) == min(len(images), len(available))
    small = (found.boxes[chosen, 2] < 16)[: len(set(images))]
    assert (np.diff(small.astype(int)) >= 0).all()


def test_only_records_that_may_serve_do():
    found = Objects(np.arange(6), np.tile([0, 0, 20, 20], (6, 1)), np.zeros(6, np.int64))
    allowed = np.array([False, True, False, True, False, False])
    assert sorted(draw_instances(found, 0, 9, 0, allowed).tolist()) == [1, 3]


def test_a_seed_draws_the_same_and_another_one_others():
    found = Objects(np.arange(50), np.tile([0, 0, 20, 20], (50, 1)), np.zeros(50, np.int64))
    drawn = [draw_instances(found, 0, 5, s, np.ones(50, bool)).tolist() for s in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_more_shots_contain_the_fewer():
    found = Objects(np.arange(50), np.tile([0, 0, 20, 20], (50, 1)), np.zeros(50, np.int64))
    few, many = (draw_instances(found, 0, k, 0, np.ones(50, bool)).tolist() for k in (3, 9))
    assert many[:3] == few


def test_a_crop_shows_its_object_with_a_little_context_in_a_grey_square():
    picture = np.zeros((100, 200, 3), np.uint8)
    picture[40:60, 50:90] = 255
    crop = cut(picture, np.array([50, 40, 90, 60]), 48)
    assert crop.shape == (48, 48, 3)
    rows, columns = np.flatnonzero((crop[..., 0] > 200).any(1)), crop[24, :, 0]
    assert (columns > 200).sum() == pytest.approx(
        40, abs=1
    )  # 40 of the 48 pixels of box and margin
    assert len(rows) == pytest.approx(20, abs=1)
    assert (crop[0] == 114).all()
    assert (crop[24, 0] == 0).all()


def test_a_crop_at_the_border_stays_inside_the_picture():
    picture = np.full((50, 50, 3), 9, np.uint8)
    assert (cut(picture, np.array([0, 0, 50, 50]), 32) == 9).all()


def test_supports_are_recorded_with_class_file_and_box(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    train = load_image_set(config(root, k_shot=3), "train")
    (file,) = (tmp_path / "cache").glob("supports-yolo-base-*/supports.json")
    record = json.loads(file.read_text())["supports"]
    assert len(record) == 3 * train.n_classes
    for entry in record:
        x1, y1, x2, y2 = (round(v) for v in entry["box"])
        with Image.open(entry["file"]) as opened:
            inside = np.asarray(opened)[y1:y2, x1:x2]
        assert (inside == colour(NAMES.index(entry["class"]))).all()
        assert "/train/" in entry["file"]


def test_supports_are_drawn_by_the_seed_of_the_split_and_cut_once(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    first, other = (
        load_annotated(config(root, k_shot=3, n_shot=3, split_seed=s, novel_classes=NAMES[:4]))
        for s in (0, 1)
    )
    assert any(first.shots[c].tolist() != other.shots[c].tolist() for c in first.shots)
    for n_query in (1, 2):
        load_image_set(config(root, k_shot=3, n_query=n_query), "train")
    assert len(list((tmp_path / "cache").glob("supports-yolo-base-*"))) == 1


def test_classes_that_only_evaluation_shows_take_their_supports_there(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    for file in (root / "labels" / "train").iterdir():
        lines = [line for line in file.read_text().splitlines() if line.split()[0] != "3"]
        file.write_text("".join(f"{line}\n" for line in lines))
    for split in ("val", "test"):
        settings = config(root, novel_classes=NAMES[2:8], n_way=2, novel_split=split)
        image_set = load_image_set(settings, split)
        if NAMES[3] in image_set.names:
            label = image_set.names.index(NAMES[3])
            origins = image_set.origins(label)
            assert len(origins) == 4
            assert all(label in image_set.objects(int(i))[1] for i in origins)
            shots = load_image_set(settings, "shots")
            assert shots.names == image_set.names
            assert label not in shots.labels  # what is evaluated on is not learnt from
            assert len(shots.labels) == 2 * 4
            return
    raise AssertionError("class 3 is in neither split")
