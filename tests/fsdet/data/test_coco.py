import json
import shutil

import numpy as np
import pytest
from made_up_data import (
    CLASSES,
    NAMES,
    coco_content,
    colour,
    config,
    load_annotated,
    write_coco,
    write_shots,
    write_yolo,
)

from fsdet.data.episodes import EpisodeSource
from fsdet.data.sources import check_data, load_image_set
from fsdet.errors import DataError

NOVEL = (3, 5, 9, 11)
NOVEL_NAMES = tuple(NAMES[i] for i in NOVEL)


@pytest.fixture
def dataset(tmp_path):
    return write_coco(tmp_path / "shapes")


def test_it_gives_the_same_sets_as_the_same_data_in_yolo_layout(dataset, tmp_path):
    twin = write_yolo(tmp_path / "twin")
    for split in ("train", "base", "val", "test", "shots"):
        a = load_image_set(config(dataset, "coco"), split)
        b = load_image_set(config(twin, "yolo"), split)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-4)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.offsets, b.offsets)
        np.testing.assert_array_equal(a.images[a.rows], b.images[b.rows])
        np.testing.assert_array_equal(a.supports, b.supports)
        np.testing.assert_array_equal(a.support_images, b.support_images)
        assert a.names == b.names


def test_category_ids_with_gaps_become_classes(dataset):
    image_set = load_image_set(config(dataset, "coco"), "train")
    for number in range(8):
        for box, label in zip(*image_set.objects(number), strict=True):
            x, y = ((box[:2] + box[2:]) / 2).astype(int)
            expected = colour(NAMES.index(image_set.names[label]))
            assert tuple(image_set.image(number)[y, x]) == expected


def test_a_single_file_is_divided_by_the_seed(dataset):
    shutil.rmtree(dataset / "val2017")
    (dataset / "annotations" / "instances_val2017.json").unlink()
    file = dataset / "annotations" / "instances_train2017.json"
    file.rename(file.with_name("instances_default.json"))
    subsets = [
        [r.subset for r in load_annotated(config(dataset, "coco", split_seed=s)).dataset.records]
        for s in (0, 1)
    ]
    assert subsets[0].count("eval") == subsets[1].count("eval") == round(32 / 5)
    assert subsets[0] != subsets[1]


@pytest.mark.parametrize("place", ["images/train2017", "images", "."])
def test_images_are_found_in_the_usual_places(dataset, place):
    (dataset / "images").mkdir()
    shutil.rmtree(dataset / "val2017")
    (dataset / "annotations" / "instances_val2017.json").unlink()
    target = dataset / place
    if target.name == "train2017":
        (dataset / "train2017").rename(target)
    else:
        for file in (dataset / "train2017").iterdir():
            file.rename(target / file.name)
    file = dataset / "annotations" / "instances_train2017.json"
    file.rename(dataset / "instances_all.json")
    assert len(load_annotated(config(dataset, "coco")).dataset.records) == 32


def with_shots(dataset, k_shot=3, labels=NOVEL, **settings):
    folder = dataset.parent / "seed1"
    for label in labels:
        write_shots(folder, label, k_shot, range(32))
    values = {"shots_dir": folder, "k_shot": k_shot, "novel_classes": NOVEL_NAMES, **settings}
    return config(dataset, "coco", **values)


def test_k_shot_files_are_the_shots_and_the_supports_of_novel_classes(dataset):
    same = {key: list(NOVEL_NAMES) for key in ("val", "test")}
    (dataset / "split.yaml").write_text(json.dumps(same))
    settings = with_shots(dataset, n_way=4, split_file=dataset / "split.yaml")
    shots, val = (load_image_set(settings, split) for split in ("shots", "val"))
    assert shots.names == val.names == NOVEL_NAMES
    assert np.bincount(shots.labels).tolist() == [3, 3, 3, 3]
    np.testing.assert_array_equal(shots.supports, val.supports)
    assert (val.support_images == -1).all()
    content = coco_content(range(32))
    for label, name in enumerate(NOVEL):
        mine = [a for a in content["annotations"] if a["category_id"] == 2 * name + 1][:3]
        images = sorted({a["image_id"] for a in mine})
        found = [shots.image(i) for i in range(len(shots)) if label in shots.objects(i)[1].tolist()]
        train = load_image_set(settings, "train")
        assert len(found) == len(images)
        for picture, number in zip(found, images, strict=True):
            np.testing.assert_array_equal(picture, train.image(number))


def test_k_shot_files_share_the_decoded_images(dataset):
    load_annotated(config(dataset, "coco"))
    load_annotated(with_shots(dataset))
    assert len(list((dataset.parent / "cache").glob("images-*"))) == 1


def test_a_novel_class_without_its_file_is_refused(dataset):
    with pytest.raises(DataError, match="no usable instance of the novel class 'class 11'"):
        load_annotated(with_shots(dataset, labels=NOVEL[:3]))


def test_no_file_for_this_k_is_refused_at_the_door(dataset):
    settings = with_shots(dataset)
    with pytest.raises(DataError, match="holds no full_box_5shot_"):
        check_data(settings.model_copy(update={"k_shot": 5}))


def test_episodes_of_the_shots_keep_crops_and_queries_apart(dataset):
    settings = with_shots(dataset, n_way=2, n_query=3, n_shot=2)
    shots = load_image_set(settings, "shots")
    source = EpisodeSource(shots, settings, 0, augment=False)
    where = {shots.image(i).tobytes(): i for i in range(len(shots))}
    for index in range(200):
        episode = source.episode(index)
        pictures = np.ascontiguousarray(np.moveaxis(episode.images.numpy(), 1, -1))
        queries = {where[picture.tobytes()] for picture in pictures}
        labels, variants = np.divmod(episode.support_ids.numpy(), settings.k_shot)
        assert not queries & {*shots.support_images[labels, variants].ravel().tolist()}


def test_an_image_in_two_k_shot_files_is_one_image_with_the_objects_of_both(dataset):
    settings = with_shots(dataset, labels=(1, 4), novel_classes=(NAMES[1], NAMES[4]), n_shot=1)
    shots = load_image_set(settings, "shots")
    assert len(shots) == len({*shots.rows}) == 5  # of images 0, 1, 16 and 1, 4, 17
    assert sorted(len(shots.objects(i)[1]) for i in range(5)) == [1, 1, 1, 1, 2]
    assert np.bincount(shots.labels).tolist() == [3, 3]


def test_no_support_of_the_shots_is_cut_from_a_query_image(dataset):
    settings = with_shots(dataset, labels=(1, 4), novel_classes=(NAMES[1], NAMES[4]), n_shot=1)
    data, shots = load_annotated(settings), load_image_set(settings, "shots")
    classes = data.split.classes("shots", settings)
    source = EpisodeSource(shots, settings, 0, augment=False)
    for index in range(300):
        episode = source.episode(index)
        numbers = [
            divmod(number, settings.k_shot) for number in episode.support_ids.flatten().tolist()
        ]
        instances = [data.shots[classes[label]][variant] for label, variant in numbers]
        origins = data.decoded.rows[data.objects.records[instances]]
        assert not np.isin(origins, shots.rows[episode.image_ids.numpy()]).any()


def edited(dataset, edit):
    file = dataset / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda c: c.pop("images"), "has no images"),
        (lambda c: c.update(annotations={}), "has no annotations"),
        (lambda c: c["categories"].pop(), "'class 15' is not in both files"),
        (lambda c: c["categories"][0].pop("name"), "a number `id` and a `name`"),
        (lambda c: c["categories"][0].update(name="class 1"), "two classes have the same name"),
    ],
)
def test_a_broken_file_is_refused_at_the_door(dataset, edit, message):
    edited(dataset, edit)
    with pytest.raises(DataError, match=message) as caught:
        check_data(config(dataset, "coco"))
    assert "instances_val2017.json" in str(caught.value)


def test_a_cut_file_is_refused(dataset):
    file = dataset / "annotations" / "instances_train2017.json"
    file.write_text(file.read_text()[:500])
    with pytest.raises(DataError, match="not valid JSON"):
        check_data(config(dataset, "coco"))


def test_files_that_are_not_there_or_not_clear_are_refused(dataset):
    annotations = dataset / "annotations"
    shutil.copy(annotations / "instances_val2017.json", annotations / "instances_val2014.json")
    with pytest.raises(DataError, match=r"has instances_val2014\.json, instances_val2017\.json"):
        check_data(config(dataset, "coco"))
    shutil.rmtree(annotations)
    with pytest.raises(DataError, match="but has none"):
        check_data(config(dataset, "coco"))
    with pytest.raises(DataError, match="data_root: dataset 'coco' needs"):
        check_data(config(dataset, "coco").model_copy(update={"data_root": None}))


def test_all_classes_are_there(dataset):
    assert len(load_annotated(config(dataset, "coco")).dataset.names) == CLASSES
