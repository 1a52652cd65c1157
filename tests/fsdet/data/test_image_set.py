import json
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from fsdet.data.image_set import ImageSet, cache_root, cached_image_set

RECIPE = {"source": "made up", "size": 8}


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


def load_slowly(root: Path) -> None:
    def build() -> ImageSet:
        with (root / "builds.txt").open("a") as file:
            file.write("built\n")
        time.sleep(1)
        return made_up()

    loaded = cached_image_set(root, "shared", RECIPE, build)
    np.testing.assert_array_equal(loaded.images, made_up().images)


def test_two_processes_that_start_together_build_once(tmp_path):
    context = get_context("spawn")
    processes = [context.Process(target=load_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builds.txt").read_text() == "built\n"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_builder_that_fails_leaves_nothing_that_looks_finished(tmp_path, error):
    def fail() -> ImageSet:
        raise error("half way")

    with pytest.raises(error):
        cached_image_set(tmp_path, "set", RECIPE, fail)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert cached_image_set(tmp_path, "set", RECIPE, made_up).n_classes == 4


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
        cached_image_set(tmp_path, "set", RECIPE, made_up)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_the_second_load_equals_the_first_without_building(tmp_path):
    def never() -> ImageSet:
        raise AssertionError("built again")

    first = cached_image_set(tmp_path, "set", RECIPE, made_up)
    second = cached_image_set(tmp_path, "set", RECIPE, never)
    for name, expected in vars(made_up()).items():
        np.testing.assert_array_equal(getattr(first, name), expected)
        np.testing.assert_array_equal(getattr(second, name), expected)
        assert getattr(second, name).dtype == expected.dtype
    assert isinstance(second.images, np.memmap)
    assert isinstance(second.supports, np.memmap)
    assert not second.images.flags.writeable


def test_another_recipe_is_another_entry_and_stands_beside_the_data(tmp_path):
    for size in (8, 9):
        cached_image_set(tmp_path, "set", {**RECIPE, "size": size}, made_up)
    recipes = [json.loads(path.read_text()) for path in tmp_path.glob("set-*/recipe.json")]
    assert sorted(recipe["size"] for recipe in recipes) == [8, 9]


def test_objects_and_images_of_each_class():
    image_set = made_up()
    boxes, labels = image_set.objects(2)
    np.testing.assert_array_equal(boxes, image_set.boxes[2:5])
    np.testing.assert_array_equal(labels, [3, 0, 1])
    assert len(image_set.objects(1)[1]) == 0
    assert [images.tolist() for images in image_set.images_of_class] == [[2], [0, 2], [], [2]]
    assert image_set.usable_classes.tolist() == [0, 1, 3]


def test_the_cache_lies_where_it_was_asked_for(monkeypatch):
    monkeypatch.setenv("FSDET_CACHE", "/from/environment")
    assert cache_root(Path("/given")) == Path("/given")
    assert cache_root(None) == Path("/from/environment")
    monkeypatch.delenv("FSDET_CACHE")
    assert cache_root(None) == Path.home() / ".cache" / "fsdet"
