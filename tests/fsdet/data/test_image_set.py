from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fsdet.config import DataConfig
from fsdet.data.cache import CacheKey, write_manifest
from fsdet.data.image_set import ARRAYS, ImageSet, cached_image_set
from fsdet.errors import DataError

KEY = CacheKey("set", {"source": "made up"}, 10_000)


def made_up() -> ImageSet:
    rng = np.random.default_rng(0)
    return ImageSet(
        images=rng.integers(0, 256, (3, 8, 8, 3), dtype=np.uint8),
        offsets=np.array([0, 2, 2, 5]),
        boxes=rng.random((5, 4), dtype=np.float32),
        labels=np.array([1, 1, 3, 0, 1]),
        supports=rng.integers(0, 256, (4, 2, 4, 4, 3), dtype=np.uint8),
        support_images=np.full((4, 2), -1),
    )


def test_the_second_load_equals_the_first_without_building(tmp_path):
    def never() -> ImageSet:
        raise AssertionError("built again")

    config = DataConfig(cache_dir=tmp_path)
    first = cached_image_set(config, KEY, ("a", "b", "c", "d"), made_up)
    second = cached_image_set(config, KEY, ("a", "b", "c", "d"), never)
    for name in ARRAYS:
        expected = getattr(made_up(), name)
        np.testing.assert_array_equal(getattr(first, name), expected)
        np.testing.assert_array_equal(getattr(second, name), expected)
        assert getattr(second, name).dtype == expected.dtype
    assert second.names == ("a", "b", "c", "d")
    assert isinstance(second.images, np.memmap)
    assert isinstance(second.supports, np.memmap)
    assert not second.images.flags.writeable


class Touches:
    """Is unpickled by calling `path.touch()`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["images", "labels"])
def test_an_array_that_would_run_code_is_refused_and_runs_none(tmp_path, name):
    config = DataConfig(cache_dir=tmp_path)
    cached_image_set(config, KEY, (), made_up)
    folder = tmp_path / KEY.folder
    np.save(folder / f"{name}.npy", np.array([Touches(tmp_path / "marker")], object))
    write_manifest(folder)  # by somebody who knows how an entry is checked
    with pytest.raises(DataError, match=f"{KEY.folder}: cannot be read .*; remove this folder"):
        cached_image_set(config, KEY, (), made_up)
    assert not (tmp_path / "marker").exists()


def test_a_disk_that_fails_while_writing_leaves_nothing(tmp_path, monkeypatch):
    saved = np.save
    calls = []

    def save_twice(*args):
        calls.append(args)
        if len(calls) > 2:
            raise OSError("disk full")
        saved(*args)

    monkeypatch.setattr(np, "save", save_twice)
    with pytest.raises(OSError, match="disk full"):
        cached_image_set(DataConfig(cache_dir=tmp_path), KEY, (), made_up)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_objects_and_images_of_each_class():
    image_set = made_up()
    boxes, labels = image_set.objects(2)
    np.testing.assert_array_equal(boxes, image_set.boxes[2:5])
    np.testing.assert_array_equal(labels, [3, 0, 1])
    assert len(image_set.objects(1)[1]) == 0
    assert [images.tolist() for images in image_set.images_of_class] == [[2], [0, 2], [], [2]]
    assert image_set.usable_classes.tolist() == [0, 1, 3]


def test_what_is_left_out_means_one_row_each_and_no_video():
    image_set = made_up()
    assert len(image_set) == 3
    np.testing.assert_array_equal(image_set.image(2), image_set.images[2])
    assert image_set.groups.tolist() == [-1, -1, -1]
    assert image_set.support_counts.tolist() == [2] * 4


def with_origins(origins, counts=None) -> ImageSet:
    whole = made_up()
    return ImageSet(
        images=whole.images,
        offsets=whole.offsets,
        boxes=whole.boxes,
        labels=whole.labels,
        supports=whole.supports,
        support_images=np.array(origins),
        support_counts=None if counts is None else np.array(counts),
        rows=np.array([2, 0, 1]),
    )


def test_images_are_found_through_their_rows():
    image_set = with_origins(np.full((4, 2), -1))
    np.testing.assert_array_equal(image_set.image(0), image_set.images[2])


def test_a_class_is_usable_if_a_query_and_a_crop_from_elsewhere_are_there():
    # class 0 lies in image 2 only, class 1 in 0 and 2, class 3 in 2 only
    only_own = with_origins([[2, 2], [0, 0], [-1, -1], [2, 2]])
    assert only_own.usable_classes.tolist() == [1]
    elsewhere = with_origins([[2, 1], [0, 0], [-1, -1], [2, -1]])
    assert elsewhere.usable_classes.tolist() == [0, 1, 3]
    repeated = with_origins([[2, 1], [0, 0], [-1, -1], [2, -1]], counts=[1, 0, 2, 2])
    assert repeated.usable_classes.tolist() == [3]


def test_free_crops_are_those_from_no_query():
    image_set = with_origins([[2, 1], [0, 0], [-1, -1], [2, -1]], counts=[2, 1, 2, 2])
    assert image_set.free_crops(0, np.array([2, 0])).tolist() == [1]
    assert image_set.free_crops(1, np.array([2, 0])).tolist() == []
    assert image_set.free_crops(1, np.array([2])).tolist() == [0]
    assert image_set.free_crops(3, np.array([0, 1, 2])).tolist() == [1]


def test_the_digest_is_that_of_the_content_wherever_it_lies(tmp_path):
    cached = cached_image_set(DataConfig(cache_dir=tmp_path), KEY, (), made_up)
    assert cached.digest == made_up().digest


@pytest.mark.parametrize(
    "name", ["offsets", "boxes", "labels", "groups", "supports", "support_images"]
)
def test_another_content_has_another_digest(name):
    values = getattr(made_up(), name).copy()
    values[0] += 1
    assert replace(made_up(), **{name: values}).digest != made_up().digest


def test_other_names_have_another_digest():
    assert replace(made_up(), names=("a", "b", "c", "d")).digest != made_up().digest
