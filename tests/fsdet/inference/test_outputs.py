import numpy as np
import torch
from PIL import ImageColor
from pycocotools.coco import COCO

from fsdet.inference.outputs import COLOURS, CocoFile, draw
from fsdet.inference.predictor import NamedDetections


def test_pycocotools_reads_what_was_written(tmp_path, capsys):
    results = CocoFile(("cup", "Tasse à café"))
    boxes = torch.tensor([[1.0, 2.0, 11.0, 22.0], [0.0, 0.0, 4.0, 4.0]])
    found = NamedDetections(boxes, torch.tensor([0.9, 0.4]), torch.tensor([1, 0]), ("a", "b"))
    nothing = NamedDetections(boxes[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64), ())
    results.add((480, 640), nothing, file_name="a.jpg")
    results.add((48, 64), found, file_name="clip.mp4", frame=7)
    results.write(tmp_path / "detections.json")
    read = COCO(str(tmp_path / "detections.json"))
    assert len(results) == 2
    assert read.loadImgs([2])[0] == {
        "id": 2, "file_name": "clip.mp4", "frame": 7, "height": 48, "width": 64,
    }  # fmt: skip
    assert read.getAnnIds(imgIds=[1]) == []
    first = read.loadAnns(read.getAnnIds(imgIds=[2]))[0]
    assert read.loadCats([first["category_id"]])[0]["name"] == "Tasse à café"
    assert (first["bbox"], first["area"], first["score"]) == ([1, 2, 10, 20], 200, 0.9)


def found(boxes, labels=None):
    count = len(boxes)
    return NamedDetections(
        torch.tensor(boxes).float().reshape(-1, 4),
        torch.linspace(0.9, 0.5, count),
        torch.tensor(labels or [0] * count, dtype=torch.int64),
        tuple(f"class {n}" for n in range(12)),
    )


def test_a_box_is_drawn_in_the_colour_of_its_class():
    grey = np.full((600, 800, 3), 128, np.uint8)
    image = draw(grey, found([(100, 200, 300, 400), (500, 200, 700, 400)], [0, 11]))
    assert image.size == (800, 600)
    for x, label in ((200, 0), (600, 11)):
        colour = ImageColor.getrgb(COLOURS[label % len(COLOURS)])
        assert image.getpixel((x, 399)) == colour
        assert image.getpixel((x, 300)) == (128, 128, 128)  # the inside stays visible


def test_small_pictures_are_enlarged_so_that_names_can_be_read():
    image = draw(np.zeros((96, 128, 3), np.uint8), found([(10, 40, 50, 90)]))
    assert image.size == (512, 384)
    assert image.getpixel((120, 359)) == ImageColor.getrgb(COLOURS[0])


def test_names_stay_inside_the_picture():
    grey = np.full((600, 600, 3), 128, np.uint8)
    corner = np.asarray(draw(grey, found([(560, 0, 600, 60)])))
    patch = (corner == ImageColor.getrgb(COLOURS[0])).all(axis=2)
    assert patch[:30, 500:560].any()  # moved to the left, below the upper edge


def test_nothing_found_draws_nothing():
    grey = np.full((600, 600, 3), 128, np.uint8)
    assert np.array_equal(np.asarray(draw(grey, found([]))), grey)
