from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fsdet.config import DataConfig
from fsdet.data.episodes import EpisodeSource
from fsdet.data.sources import load_image_set
from fsdet.data.yolo import class_names, load_yolo, read_description, split_classes
from fsdet.errors import DataError

COCO128 = Path(__file__).parents[4] / "shared" / "data" / "coco128"
CLASSES = 16
WIDTH, HEIGHT = 96, 64


def colour(label: int) -> tuple[int, int, int]:
    return 40 + 60 * (label % 4), 40 + 60 * (label // 4), 250


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Each image shows two boxes in the colours of their classes, one left and one right."""
    root = tmp_path / "shapes"
    for split, count in (("train", 32), ("val", 32)):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", (WIDTH, HEIGHT))
            lines = []
            for place, label in enumerate((number % CLASSES, (number * 3 + 1) % CLASSES)):
                x, y = 8 + 48 * place, 12
                picture.paste(colour(label), (x, y, x + 24, y + 36))
                lines.append(
                    f"{label} {(x + 12) / WIDTH} {(y + 18) / HEIGHT} {24 / WIDTH} {36 / HEIGHT}"
                )
            picture.save(root / "images" / split / f"{number:03}.png")
            (root / "labels" / split / f"{number:03}.txt").write_text("\n".join(lines) + "\n")
    names = {i: f"class {i}" for i in range(CLASSES)}
    description = {"path": ".", "train": "images/train", "val": "images/val", "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(description))
    return root


def config(root: Path, **settings) -> DataConfig:
    values = {"image_size": 96, "support_size": 32, "cache_dir": root.parent / "cache"}
    return DataConfig(dataset="yolo", data_root=root, **{**values, **settings})


def test_boxes_and_labels_lie_on_the_objects(dataset):
    classes = split_classes([str(i) for i in range(CLASSES)], "train")
    image_set = load_yolo(config(dataset), "train")
    assert len(image_set.images) == 32
    assert len(image_set.labels) > 32
    for number in range(32):
        for box, label in zip(*image_set.objects(number), strict=True):
            x1, y1, x2, y2 = box.round().astype(int)
            inside = image_set.images[number][y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
            assert (inside == colour(classes[label])).all()
            assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((24, 36), abs=1e-3)


def test_supports_show_their_class_and_know_their_image(dataset):
    classes = split_classes([str(i) for i in range(CLASSES)], "train")
    image_set = load_yolo(config(dataset), "train")
    for label, (crops, images) in enumerate(
        zip(image_set.supports, image_set.support_images, strict=True)
    ):
        assert (crops[:, 16, 16] == colour(classes[label])).all()
        assert all(label in image_set.objects(int(image))[1] for image in images)


def test_splits_are_disjoint_and_keep_one_order():
    names = [str(i) for i in range(80)]
    parts = {split: set(split_classes(names, split)) for split in ("base", "val", "test")}
    assert sum(map(len, parts.values())) == 80
    assert set().union(*parts.values()) == set(range(80))
    assert (len(parts["val"]), len(parts["test"])) == (10, 10)
    assert split_classes(names, "train") == split_classes(names, "base")


def test_novel_splits_show_validation_images_and_their_own_classes(dataset):
    val, test = (load_yolo(config(dataset), split) for split in ("val", "test"))
    assert val.n_classes == test.n_classes == 2
    assert len(val.images) == 32
    assert not set(split_classes([""] * CLASSES, "val")) & set(
        split_classes([""] * CLASSES, "test")
    )


def test_its_episodes_never_search_an_image_with_its_own_crop(dataset):
    image_set = load_yolo(config(dataset), "train")
    source = EpisodeSource(image_set, config(dataset, n_query=1), 0, augment=False)
    for index in range(20):
        rng = np.random.default_rng(index)
        for label in image_set.usable_classes:
            origins = image_set.support_images[label]
            query = origins[:1]
            crops = image_set.supports[label][source._variants(rng, label, query)]
            if len(set(origins)) > 1:
                allowed = image_set.supports[label][origins != query[0]]
                assert all((crop == allowed).all((1, 2, 3)).any() for crop in crops)


def test_a_changed_label_file_is_another_entry_of_the_cache(dataset):
    before = load_yolo(config(dataset), "train")
    for file in sorted((dataset / "labels" / "train").glob("*.txt"))[:8]:
        file.write_text("")
    after = load_yolo(config(dataset), "train")
    assert len(after.labels) < len(before.labels)


@pytest.mark.parametrize("line", ["3 0.5 0.5 0.1", "dog 0.5 0.5 0.1 0.1", "3,0.5,0.5,0.1,0.1"])
def test_a_broken_label_line_names_file_and_line(dataset, line):
    file = dataset / "labels" / "train" / "005.txt"
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(DataError, match=r"005\.txt:3: must be 'class cx cy w h'"):
        load_yolo(config(dataset), "train")


def test_a_class_that_is_no_number_names_file_and_line(dataset):
    file = dataset / "labels" / "train" / "005.txt"
    file.write_text("nan 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DataError, match=r"005\.txt:1"):
        load_yolo(config(dataset), "train")


def test_a_broken_image_is_named(dataset):
    (dataset / "images" / "train" / "004.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"004\.png: cannot be decoded"):
        load_yolo(config(dataset), "train")


def test_boxes_are_cut_at_the_border_and_dots_are_dropped(dataset):
    label = split_classes([""] * CLASSES, "train")[0]
    lines = [f"{label} 0.0 0.5 0.5 0.5", f"{label} 0.5 0.5 0.0001 0.0001"]
    (dataset / "labels" / "train" / "000.txt").write_text("\n".join(lines))
    boxes, labels = load_yolo(config(dataset), "train").objects(0)
    np.testing.assert_allclose(boxes, [[0, 32, 24, 64]])
    assert labels.tolist() == [0]


def test_an_image_without_label_file_has_no_objects(dataset):
    (dataset / "labels" / "train" / "000.txt").unlink()
    assert len(load_yolo(config(dataset), "train").objects(0)[1]) == 0


def test_too_few_classes_for_an_episode(dataset):
    with pytest.raises(DataError, match="n_way = 3 classes, but split 'val' shows 2"):
        load_image_set(config(dataset, n_way=3), "val")


def test_a_missing_description(tmp_path):
    with pytest.raises(DataError, match=r"data\.yaml: no such file"):
        read_description(config(tmp_path))
    with pytest.raises(DataError, match="data_root: dataset 'yolo' needs"):
        read_description(DataConfig(dataset="yolo"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\nval: b\n", "lacks names"),
        ("", "lacks train, val, names"),
        ("a: [1", "not valid YAML"),
    ],
)
def test_a_broken_description(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_description(config(tmp_path))


@pytest.mark.parametrize("text", ["7\n", "[train, val, names]\n"])
def test_a_description_that_is_no_mapping(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError):
        read_description(config(tmp_path))


def test_a_folder_without_images(dataset):
    for file in (dataset / "images" / "train").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="holds no images"):
        load_yolo(config(dataset), "train")


def test_names_may_be_a_list_or_a_mapping():
    assert class_names({"names": ["a", "b"]}) == class_names({"names": {1: "b", 0: "a"}})


@pytest.mark.slow
@pytest.mark.skipif(not COCO128.is_dir(), reason="coco128 is not beside the repository")
def test_coco128_loads(tmp_path):
    settings = config(COCO128, cache_dir=tmp_path, image_size=64)
    image_set = load_yolo(settings, "train")
    assert image_set.n_classes == 60
    assert len(image_set.images) > 50
    assert (image_set.boxes >= 0).all()
    assert (image_set.boxes <= 64).all()
    episode = EpisodeSource(image_set, settings, 0, augment=False).episode(0)
    assert episode.targets.mask.any()
