import torch
from pycocotools.coco import COCO

from fsdet.inference.coco_json import CocoFile
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
