import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_use import refusal_of
from PIL import ExifTags, Image

from fsdet.data.images import (
    PADDING_GREY,
    UnreadableError,
    count_frames,
    letterbox,
    letterbox_boxes,
    mirror,
    open_image,
    read_frames,
    to_rgb,
)
from fsdet.errors import DataError

RAMP = np.arange(2**16, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize(
    ("name", "kind"), [("a.png", np.uint16), ("a.tif", np.uint16), ("a.tif", np.int32)]
)
def test_of_16_bits_the_upper_eight_are_kept(tmp_path, name, kind):
    Image.fromarray(RAMP.astype(kind)).save(tmp_path / name)
    picture = open_image(tmp_path / name)
    assert picture.shape == (256, 256, 3)
    assert picture.dtype == np.uint8
    for channel in range(3):
        np.testing.assert_array_equal(picture[..., channel], RAMP // 256)


def test_hidden_colours_do_not_show(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 4), np.uint8)
    pixels[:, :3, 3], pixels[:, 3:6, 3] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = open_image(tmp_path / "a.png")
    assert (picture[:, :3] == PADDING_GREY).all()
    np.testing.assert_array_equal(picture[:, 3:6], pixels[:, 3:6, :3])
    alpha = pixels[:, 6:, 3:] / 255
    expected = alpha * pixels[:, 6:, :3] + (1 - alpha) * PADDING_GREY
    np.testing.assert_allclose(picture[:, 6:], expected, atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_that_stands_for_transparency_is_hidden(tmp_path, mode):
    picture = Image.new(mode, (4, 4))
    Image.new(mode, (4, 4)).save(
        tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else picture.getpixel((0, 0))
    )
    assert (open_image(tmp_path / "a.png") == PADDING_GREY).all()


@pytest.mark.parametrize(
    "mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16", "I", "F"]
)
def test_every_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (3, 2))).shape == (2, 3, 3)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_an_image_is_turned_as_its_orientation_says(tmp_path, kind):
    picture = Image.fromarray(np.zeros((20, 40), kind))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    assert open_image(tmp_path / "turned.png").shape == (40, 20, 3)


BROKEN = """
import sys
from pathlib import Path
from ultralytics.utils import patches
from PIL import Image
from fsdet.data.images import UnreadableError, open_image
assert Image.open is patches.image_open
try:
    open_image(Path(sys.argv[1]))
except UnreadableError as error:
    print(error, end="")
"""


def test_a_broken_image_has_pillows_own_reason_whatever_ultralytics_puts_in_its_place(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"no image")
    with pytest.raises(UnreadableError) as caught:
        open_image(file)
    done = subprocess.run(
        [sys.executable, "-c", BROKEN, str(file)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == str(caught.value) == f"cannot identify image file '{file}'"


def painted(height: int, width: int, box: tuple[int, int, int, int]):
    """A black image with one white box."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image, np.array([box], np.float32)


def bounds(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_mirror_moves_box_and_pixels_together():
    image, boxes = painted(20, 30, (3, 4, 10, 12))
    mirrored, moved = mirror(image, boxes)
    assert moved.tolist() == [[20, 4, 27, 12]]
    assert bounds(mirrored[..., 0] == 255) == moved[0].tolist()


def test_mirror_twice_is_the_original():
    image, boxes = painted(20, 30, (3, 4, 10, 12))
    again, back = mirror(*mirror(image, boxes))
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(back, boxes)


def test_no_boxes_stay_no_boxes():
    image, none = np.zeros((20, 30, 3), np.uint8), np.zeros((0, 4), np.float32)
    assert mirror(image, none)[1].shape == (0, 4)
    assert letterbox_boxes(none, np.array([[30, 20]]), 64).shape == (0, 4)


@pytest.mark.parametrize(("height", "width"), [(40, 80), (80, 40), (64, 64), (33, 97)])
def test_letterbox_moves_box_and_pixels_together(height, width):
    image, boxes = painted(height, width, (width // 4, height // 4, width // 2, height // 2))
    boxed = letterbox(image, 128)
    moved = letterbox_boxes(boxes, np.array([[width, height]]), 128)
    assert boxed.shape == (128, 128, 3)
    np.testing.assert_allclose(bounds(boxed[..., 0] > 200), moved[0], atol=2)


def test_letterbox_pads_with_grey_in_equal_parts():
    boxed = letterbox(np.zeros((32, 64, 3), np.uint8), 64)
    assert (boxed[:16] == 114).all()
    assert (boxed[16:48] == 0).all()
    assert (boxed[48:] == 114).all()


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([32, 64, 96]))
def test_the_whole_image_as_a_box_stays_inside_the_square(height, width, size):
    whole = np.array([[0, 0, width, height]], np.float32)
    boxed = letterbox(np.full((height, width, 3), 7, np.uint8), size)
    moved = letterbox_boxes(whole, np.array([[width, height]]), size)
    assert bounds(boxed[..., 0] == 7) == moved[0].round().tolist()
    assert (moved >= 0).all()
    assert (moved <= size + 1e-3).all()
    assert max(moved[0, 2:] - moved[0, :2]) == pytest.approx(size, rel=1e-5)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=6),
    st.sampled_from([32, 64, 96]),
)
def test_boxes_of_many_images_move_as_each_alone(sizes, size):
    boxes = np.array([[0.25 * w, 0.5 * h, w, h] for w, h in sizes], np.float32)
    together = letterbox_boxes(boxes, np.array(sizes), size)
    for box, moved, (width, height) in zip(boxes, together, sizes, strict=True):
        alone = letterbox_boxes(box[None], np.array([[width, height]]), size)
        np.testing.assert_array_equal(alone[0], moved)


def test_an_image_of_too_many_pixels_takes_no_memory(tmp_path):
    picture = Image.new("RGBA", (9000, 9000))
    picture.save(tmp_path / "a.png")
    imports = "from fsdet.data.images import UnreadableError, open_image"
    told, kilobytes = refusal_of(tmp_path / "a.png", imports, "open_image", "UnreadableError")
    assert told == "9000 x 9000 are 81 megapixels, but the limit is 65; make it smaller"
    assert kilobytes < 50_000


@pytest.mark.timeout(60)
def test_a_named_pipe_is_no_image_and_no_video(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(not a regular file\)"):
        open_image(tmp_path / "a.png")
    assert count_frames(tmp_path / "a.png") == 0
    assert list(read_frames(tmp_path / "a.png", [0, 2])) == [None, None]


def test_the_orientation_of_a_photo_is_applied_and_the_photo_stays_as_it_is():
    picture = Image.fromarray(RAMP.astype(np.uint8)[:, :100])
    picture.getexif()[ExifTags.Base.Orientation] = 6
    assert to_rgb(picture).shape == (100, 256, 3)
    assert picture.size == (100, 256)
