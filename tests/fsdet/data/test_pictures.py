import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fsdet.data.pictures import UnreadableError, open_image, to_rgb
from fsdet.data.transforms import GREY

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
    assert (picture[:, :3] == GREY).all()
    np.testing.assert_array_equal(picture[:, 3:6], pixels[:, 3:6, :3])
    alpha = pixels[:, 6:, 3:] / 255
    expected = alpha * pixels[:, 6:, :3] + (1 - alpha) * GREY
    np.testing.assert_allclose(picture[:, 6:], expected, atol=1)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_colour_that_stands_for_transparency_is_hidden(tmp_path, mode):
    picture = Image.new(mode, (4, 4))
    Image.new(mode, (4, 4)).save(
        tmp_path / "a.png", transparency=(0, 0, 0) if mode == "RGB" else picture.getpixel((0, 0))
    )
    assert (open_image(tmp_path / "a.png") == GREY).all()


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
from fsdet.data.pictures import UnreadableError, open_image
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
