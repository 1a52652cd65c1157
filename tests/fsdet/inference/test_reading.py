import numpy as np
import pytest
from PIL import Image

from fsdet.errors import DataError
from fsdet.inference.reading import read_picture


def test_a_file_an_image_and_an_array_are_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for form in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        assert np.array_equal(read_picture(form), pixels)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_turned_photograph_is_read_the_right_way_up(tmp_path, as_file):
    image = Image.new("RGB", (8, 4), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    picture = tmp_path / "a.jpg" if as_file else Image.open(tmp_path / "a.jpg")
    assert read_picture(picture).shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_colour_modes_become_rgb(mode):
    assert read_picture(Image.new(mode, (5, 6))).shape == (6, 5, 3)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    for name in ("a.jpg", "b.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot be decoded as an image"):
            read_picture(tmp_path / name)
    with pytest.raises(DataError, match=r"c\.png: no such file"):
        read_picture(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"\(height, width, 3\) RGB, but got shape \(4, 4\)"):
        read_picture(np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="uint8 array, but got float32"):
        read_picture(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(DataError, match="but got int"):
        read_picture(3)
