import os

import numpy as np
import pytest
from PIL import Image

from fsdet.errors import DataError
from fsdet.inference.inputs import find_inputs, find_supports, read_image
from fsdet.inference.video import frame_rate, frames_of


def test_a_folder_of_pictures_is_a_class(pictures):
    found = find_supports([pictures / "supports" / "cup"])
    assert {name: [p.name for p in files] for name, files in found.items()} == {
        "cup": ["0.png", "1.png", "2.png"]
    }


def test_a_folder_of_folders_is_a_class_each(pictures):
    (pictures / "supports" / ".thumbnails").mkdir()
    whole = find_supports([pictures / "supports"])
    assert list(whole) == ["cup", "hat"]
    assert whole == find_supports([pictures / "supports" / "cup", pictures / "supports" / "hat"])


def test_pictures_one_by_one_are_one_class(pictures):
    files = sorted((pictures / "supports" / "cup").iterdir())
    assert find_supports(files) == {"object": files}


def test_supports_that_belong_to_no_class_are_refused(pictures):
    folder = pictures / "supports"
    with pytest.raises(DataError, match="an image next to folders"):
        find_supports([folder / "cup", folder / "hat" / "0.png"])
    with pytest.raises(DataError, match="two folders have this name"):
        find_supports([folder / "cup", folder])
    (folder / "loose.png").write_bytes((folder / "cup" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"both images \(loose\.png\) and folders \(cup\)"):
        find_supports([folder])
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds none of"):
        find_supports([pictures / "empty"])
    with pytest.raises(DataError, match="nowhere: no such file or folder"):
        find_supports([pictures / "nowhere"])


def test_inputs_are_found_in_order(pictures):
    (pictures / "scenes" / "notes.txt").write_text("not a picture")
    (pictures / "scenes" / "clip.mp4").touch()
    names = [p.name for p in find_inputs([pictures / "scenes"])]
    assert names == ["clip.mp4", "scene_0.png", "scene_1.png", "scene_2.png"]
    with pytest.raises(DataError, match=r"notes\.txt: must be one of"):
        find_inputs([pictures / "scenes" / "notes.txt"])
    with pytest.raises(DataError, match="no such file"):
        find_inputs([pictures / "scene_9.png"])


def test_a_file_an_image_and_an_array_are_the_same(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for form in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(pixels), pixels):
        assert np.array_equal(read_image(form), pixels)


@pytest.mark.parametrize("as_file", [True, False])
def test_a_turned_photograph_is_read_the_right_way_up(tmp_path, as_file):
    image = Image.new("RGB", (8, 4), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "a.jpg", exif=exif)
    picture = tmp_path / "a.jpg" if as_file else Image.open(tmp_path / "a.jpg")
    assert read_image(picture).shape == (8, 4, 3)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_colour_modes_become_rgb(mode):
    assert read_image(Image.new(mode, (5, 6))).shape == (6, 5, 3)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:60])
    for name in ("a.jpg", "b.png"):
        with pytest.raises(DataError, match=rf"{name}: cannot be decoded as an image"):
            read_image(tmp_path / name)
    with pytest.raises(DataError, match=r"c\.png: no such file"):
        read_image(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"\(height, width, 3\) RGB, but got shape \(4, 4\)"):
        read_image(np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="uint8 array, but got float32"):
        read_image(np.zeros((4, 4, 3), np.float32))
    with pytest.raises(DataError, match="but got int"):
        read_image(3)


@pytest.mark.timeout(60)
def test_a_named_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match="not a regular file"):
        read_image(find_inputs([tmp_path])[0])
    os.mkfifo(tmp_path / "b.mp4")
    with pytest.raises(DataError, match=r"b\.mp4: no frame of it can be decoded"):
        list(frames_of(tmp_path / "b.mp4"))
    assert frame_rate(tmp_path / "b.mp4") > 0
