"""An example as files: the classes are named, and no support was cut from one of its images."""

import numpy as np
import pytest
from PIL import Image

from fsdet.data.image_set import ImageSet
from fsdet.data.sources import load_image_set
from fsdet.inference.example import choose_images, class_name, write_example


def made_up(names: tuple[str, ...] = ()) -> ImageSet:
    """Four images that all show the only two classes; each class has one crop, of image 0 and 1."""
    return ImageSet(
        images=np.zeros((4, 64, 64, 3), np.uint8),
        offsets=np.arange(0, 9, 2),
        boxes=np.zeros((8, 4), np.float32),
        labels=np.tile([0, 1], 4),
        supports=np.zeros((2, 1, 32, 32, 3), np.uint8),
        support_images=np.array([[0], [1]]),
        names=names,
    )


def test_the_files_show_what_the_image_set_holds(small_config, tmp_path):
    config = small_config(n_way=4, n_shot=2)
    scenes = load_image_set(config, "val")
    example = write_example(config, tmp_path)
    assert len(example.supports) == 3
    for name, files in example.supports.items():
        label = scenes.names.index(name)
        crops = [np.asarray(crop) for crop in scenes.supports[label]]
        assert len(files) == 2
        assert all(any((np.asarray(Image.open(f)) == c).all() for c in crops) for f in files)
    for file in example.images:
        shown = np.asarray(Image.open(file))
        assert any((shown == scenes.image(number)).all() for number in range(len(scenes)))
    assert write_example(config, tmp_path) == example


def test_no_support_was_cut_from_an_image():
    labels, origins = np.array([0, 1]), np.array([[0], [1]])
    assert choose_images(made_up(), labels, origins) == [2, 3]


@pytest.mark.parametrize(
    ("names", "expected"),
    [((), "class 1"), (("a", "b/c: d"), "b_c_ d"), (("a", "/"), "_"), (("a", "köln"), "köln")],
)
def test_the_name_of_a_class_is_that_of_a_folder(names, expected):
    assert class_name(made_up(names), 1) == expected
