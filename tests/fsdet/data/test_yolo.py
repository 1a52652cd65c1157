from pathlib import Path

import numpy as np
import pytest
import yaml
from made_up_data import CLASSES, HEIGHT, NAMES, WIDTH, colour, config, load_annotated, write_yolo

from fsdet.config import DataConfig
from fsdet.data.episodes import EpisodeSource
from fsdet.data.sources import check_data, load_image_set
from fsdet.data.yolo import class_names, read_description, read_yolo
from fsdet.errors import DataError

COCO128 = Path(__file__).parents[4] / "shared" / "data" / "coco128"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_yolo(tmp_path / "shapes")


@pytest.mark.parametrize("split", ["train", "base", "val", "test", "shots"])
def test_boxes_and_labels_lie_on_the_objects(dataset, split):
    image_set = load_image_set(config(dataset), split)
    assert len(image_set.labels) > 3
    for number in range(len(image_set)):
        for box, label in zip(*image_set.objects(number), strict=True):
            x1, y1, x2, y2 = box.round().astype(int)
            inside = image_set.image(number)[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1]
            assert (inside == colour(NAMES.index(image_set.names[label]))).all()
            assert (box[2] - box[0], box[3] - box[1]) == pytest.approx((24, 36), abs=1e-3)


@pytest.mark.parametrize("split", ["train", "val", "shots"])
def test_supports_show_their_class_and_know_their_image(dataset, split):
    image_set = load_image_set(config(dataset), split)
    for label, (crops, images) in enumerate(
        zip(image_set.supports, image_set.support_images, strict=True)
    ):
        assert (crops[:, 16, 16] == colour(NAMES.index(image_set.names[label]))).all()
        if split == "val":
            assert (images == -1).all()
        else:
            assert all(label in image_set.objects(int(image))[1] for image in images)


def test_all_splits_are_views_on_one_memory_map(dataset):
    sets = [load_image_set(config(dataset), split) for split in ("train", "base", "val", "shots")]
    assert all(s.images is sets[0].images for s in sets)
    assert isinstance(sets[0].images, np.memmap)
    assert len(sets[0].images) == 64
    assert not {*sets[0].rows} & {*sets[1].rows}


def test_novel_splits_show_evaluation_images_and_their_own_classes(dataset):
    train, val, test = (
        load_image_set(config(dataset), split) for split in ("train", "val", "test")
    )
    assert len(val) == len(test) == 32
    assert len(val.names) == len(test.names) == 2
    assert len({*train.names, *val.names, *test.names}) == CLASSES


def test_its_episodes_never_search_an_image_with_its_own_crop(dataset):
    settings = config(dataset, n_query=3, n_shot=2)
    for split in ("train", "shots"):
        image_set = load_image_set(settings, split)
        row_of = {image_set.image(i).tobytes(): i for i in range(len(image_set))}
        for index in range(100):
            episode = EpisodeSource(image_set, settings, 0, augment=False).episode(index)
            pictures = np.moveaxis(episode.images.numpy(), 1, -1)
            queries = {row_of[np.ascontiguousarray(picture).tobytes()] for picture in pictures}
            labels, variants = np.divmod(episode.support_ids.numpy(), settings.k_shot)
            assert not queries & {*image_set.support_images[labels, variants].ravel().tolist()}


def test_changed_labels_are_seen_and_nothing_is_decoded_again(dataset):
    before = load_annotated(config(dataset))
    for file in sorted((dataset / "labels" / "train").glob("*.txt"))[:8]:
        file.write_text("")
    after = load_annotated(config(dataset, split_seed=1))  # another key: read again
    assert len(after.objects.labels) == len(before.objects.labels) - 16
    assert len(list((dataset.parent / "cache").glob("images-*"))) == 1


def test_a_polygon_counts_as_the_box_around_it(dataset):
    points = [(0.25, 0.5), (0.5, 0.25), (0.75, 0.5), (0.5, 0.75)]
    text = " ".join(f"{x} {y}" for x, y in points)
    (dataset / "labels" / "train" / "000.txt").write_text(f"3 {text}\n")
    record = read_yolo(config(dataset)).records[0]
    np.testing.assert_allclose(record.boxes, [[0.25, 0.25, 0.75, 0.75]])
    assert record.labels.tolist() == [3]


def test_folders_may_be_listed_and_a_text_file_may_list_images(dataset):
    whole = read_yolo(config(dataset))
    description = yaml.safe_load((dataset / "data.yaml").read_text())
    listed = dataset / "val.txt"
    files = sorted((dataset / "images" / "val").iterdir())
    listed.write_text("".join(f"./{file.relative_to(dataset)}\n" for file in files))
    changed = {**description, "train": ["images/train"], "val": "val.txt"}
    (dataset / "data.yaml").write_text(yaml.safe_dump(changed))
    again = read_yolo(config(dataset))
    assert [r.image.file.name for r in again.records] == [r.image.file.name for r in whole.records]
    assert sum(len(r.labels) for r in again.records) == sum(len(r.labels) for r in whole.records)


@pytest.mark.parametrize("way", ["name", "index"])
def test_classes_are_given_by_name_or_by_index(dataset, way):
    wanted = [3, 5, 9, 11]
    novel = tuple(NAMES[i] if way == "name" else str(i) for i in wanted)
    val, test = (
        load_image_set(config(dataset, novel_classes=novel), split) for split in ("val", "test")
    )
    assert {*val.names, *test.names} == {NAMES[i] for i in wanted}


def test_a_missing_description(tmp_path):
    with pytest.raises(DataError, match=r"data\.yaml: no such file"):
        read_description(config(tmp_path))
    with pytest.raises(DataError, match="data_root: dataset 'yolo' needs"):
        check_data(DataConfig(dataset="yolo"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: a\nval: b\n", "has no names"),
        ("", "has no train, val, names"),
        ("a: [1", "not valid YAML"),
        ("7\n", "`key: value` lines"),
        ("[train, val, names]\n", "`key: value` lines"),
        ("train: a\nval: b\nnames: [a, b, a]\n", "'a' is the name of two classes"),
        ("train: a\nval: b\nnames: {0: a, 2: b}\n", "numbered 0 to 1"),
        ("train: a\nval: b\nnames: a\n", "list or a mapping"),
    ],
)
def test_a_broken_description(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_description(config(tmp_path))


def test_a_folder_without_images(dataset):
    for file in (dataset / "images" / "train").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="holds no images"):
        check_data(config(dataset))


def test_names_may_be_a_list_or_a_mapping():
    assert class_names({"names": ["a", "b"]}) == class_names({"names": {1: "b", 0: "a"}})


@pytest.mark.skipif(not COCO128.is_dir(), reason="coco128 is not beside the repository")
def test_coco128_loads(tmp_path):
    settings = config(COCO128, cache_dir=tmp_path, image_size=64)
    image_set = load_image_set(settings, "train")
    assert len(image_set) == 128
    assert (image_set.boxes >= 0).all()
    assert (image_set.boxes <= 64).all()
    episode = EpisodeSource(image_set, settings, 0, augment=False).episode(0)
    assert episode.targets.mask.any()
    names = {problem.kind for problem in load_annotated(settings).problems}
    assert {"label file missing", "label file without image"} <= names


def test_the_size_of_the_made_up_images_is_that_of_their_boxes(dataset):
    data = load_annotated(config(dataset))
    assert {tuple(size) for size in data.original_sizes.tolist()} == {(WIDTH, HEIGHT)}


@pytest.mark.timeout(60)
def test_many_class_names_are_compared_at_once():
    names = [f"class {i}" for i in range(100_000)]
    assert len(class_names({"names": names})) == 100_000
    with pytest.raises(DataError, match="'class 7' is the name of two classes"):
        class_names({"names": [*names, "class 7"]})
