import pytest

from fsdet.errors import DataError
from fsdet.inference.inputs import find_inputs, find_supports


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
    with pytest.raises(DataError, match="a picture beside folders"):
        find_supports([folder / "cup", folder / "hat" / "0.png"])
    with pytest.raises(DataError, match="two folders of this name"):
        find_supports([folder / "cup", folder])
    (folder / "loose.png").write_bytes((folder / "cup" / "0.png").read_bytes())
    with pytest.raises(DataError, match=r"both pictures \(loose\.png\) and folders \(cup\)"):
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
