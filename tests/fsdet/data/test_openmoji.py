import hashlib

import numpy as np
import pytest
from PIL import Image

from fsdet.data import openmoji
from fsdet.data.glyphs import render_glyph
from fsdet.data.openmoji import class_codes, compose_scene, load_openmoji

SHA256 = {
    "train": "6393b48fec6ade7f",
    "base": "8b3698eb73d73043",
    "val": "ea8199a5a57e8317",
    "test": "a4425809649ba2f8",
}
"""First sixteen digits, of the first scene that seed 0 gives at 128 pixels."""


def scenes(split: str, count: int, size: int = 64):
    rng = np.random.default_rng(1)
    return [compose_scene(rng, split, size) for _ in range(count)]


@pytest.mark.parametrize("split", SHA256)
def test_a_seed_gives_the_same_pixels_on_any_machine(split):
    image, boxes, labels = compose_scene(np.random.default_rng(0), split, 128)
    content = image.tobytes() + boxes.tobytes() + labels.astype(np.int64).tobytes()
    assert hashlib.sha256(content).hexdigest()[:16] == SHA256[split]


@pytest.mark.parametrize("split", ["train", "test"])
def test_boxes_lie_inside_the_image_and_end_where_the_glyph_ends(split):
    for seed in range(12):
        image, boxes, _ = compose_scene(np.random.default_rng(seed), split, 128)
        empty = openmoji._background(np.random.default_rng(seed), split, 128)
        changed = (image != np.asarray(empty)).any(axis=2)
        assert (boxes >= 0).all()
        assert (boxes <= 128).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        covered = np.zeros((128, 128), np.int64)
        for x1, y1, x2, y2 in boxes.astype(int):
            covered[y1:y2, x1:x2] += 1
        assert not changed[covered == 0].any()
        for x1, y1, x2, y2 in boxes.astype(int):
            if covered[y1:y2, x1:x2].max() == 1:
                inside = changed[y1:y2, x1:x2]
                edges = inside[0], inside[-1], inside[:, 0], inside[:, -1]
                assert all(edge.any() for edge in edges)


def test_scenes_hold_several_objects_of_several_classes():
    drawn = [labels for _, _, labels in scenes("train", 60)]
    counts = [len(labels) for labels in drawn]
    assert min(counts) >= 3
    assert np.mean(counts) > 5
    assert min(len(set(labels.tolist())) for labels in drawn) >= 2
    assert any(np.bincount(labels).max() > 1 for labels in drawn)


def test_a_scene_aims_at_no_fewer_objects_than_the_least():
    rng = np.random.default_rng(0)
    aimed = [len(list(openmoji._draw_labels(rng, 500))) for _ in range(500)]
    assert min(aimed) == openmoji.OBJECTS[0]


def test_a_scene_aims_at_two_more_objects_than_the_most_at_most():
    rng = np.random.default_rng(0)
    aimed = [len(list(openmoji._draw_labels(rng, 500))) for _ in range(500)]
    assert max(aimed) == openmoji.OBJECTS[1] + len(openmoji.COPIES) - 1


def test_labels_name_classes_of_the_split():
    for split in ("train", "val", "test"):
        labels = np.concatenate([labels for _, _, labels in scenes(split, 20)])
        assert labels.min() >= 0
        assert labels.max() < len(class_codes(split))


def test_objects_hide_little_of_each_other():
    for _, boxes, _ in scenes("train", 20):
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                assert openmoji._overlap(tuple(box), tuple(other)) <= openmoji.MOST_OVERLAP


def test_evaluation_shows_neither_classes_nor_backgrounds_of_training():
    assert not set(openmoji.TRAIN_BACKGROUNDS) & set(openmoji.EVAL_BACKGROUNDS)
    assert class_codes("base") == class_codes("train")
    assert not set(class_codes("train")) & {*class_codes("val"), *class_codes("test")}


def test_backgrounds_are_those_of_the_split():
    for split, names in (
        ("train", openmoji.TRAIN_BACKGROUNDS),
        ("val", openmoji.EVAL_BACKGROUNDS),
    ):
        openmoji._photograph.cache_clear()
        for seed in range(60):
            openmoji._background(np.random.default_rng(seed), split, 32)
        assert openmoji._photograph.cache_info().currsize == len(names)


def test_loading_twice_gives_the_same_set(small_config, small_data):
    first, second = (load_openmoji(small_config(), "val") for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert len(first.images) == openmoji.EVAL_SCENES
    assert len(list(small_data.glob("openmoji-val-*"))) == 1


@pytest.mark.slow
def test_worker_processes_change_nothing(small_config):
    alone, shared = (
        openmoji.build_openmoji(small_config(num_workers=workers), "val", 70) for workers in (0, 2)
    )
    np.testing.assert_array_equal(alone.images, shared.images)
    np.testing.assert_array_equal(alone.labels, shared.labels)


def test_supports_show_the_glyph_of_their_class(train_set):
    """The colour in the middle of the crops goes with the colour in the middle of the glyph."""
    count = 200
    shown = train_set.supports[:count, :, 12:20, 12:20].astype(float).mean(axis=(1, 2, 3))
    glyphs = []
    for code in class_codes("train")[:count]:
        grey = Image.new("RGBA", render_glyph(code).size, (128, 128, 128, 255))
        grey.alpha_composite(render_glyph(code))
        glyphs.append(np.asarray(grey.convert("RGB").resize((32, 32)))[12:20, 12:20].mean((0, 1)))
    in_order = np.corrcoef(np.ravel(glyphs), shown.ravel())[0, 1]
    shifted = np.corrcoef(np.ravel(glyphs), np.roll(shown, 1, axis=0).ravel())[0, 1]
    assert in_order > 0.5
    assert in_order > shifted + 0.3
