import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from made_up_data import NAMES, config, write_yolo

from fsdet.config import DataConfig
from fsdet.data.sources import check_data, load_image_set
from fsdet.data.splits import split_classes
from fsdet.errors import DataError

ALL = range(len(NAMES))


def split(present=ALL, **settings):
    return split_classes(DataConfig(**settings), NAMES, present)


@given(st.integers(0, 99), st.floats(0.1, 0.9), st.sets(st.sampled_from(ALL), min_size=3))
def test_a_seeded_split_is_disjoint_and_covers_what_is_present(seed, fraction, present):
    parts = split(present, split_seed=seed, novel_fraction=min(fraction, 1 - 1 / len(present)))
    assert not {*parts.base} & {*parts.novel}
    assert {*parts.base} | {*parts.novel} == present
    assert parts.base
    assert parts.val
    assert parts.test


def test_the_seed_alone_decides():
    assert split(split_seed=3) == split(split_seed=3)
    assert len({split(split_seed=seed) for seed in range(10)}) > 5


def test_a_class_that_goes_leaves_most_others_where_they_are():
    whole, fewer = split(novel_fraction=0.5), split([c for c in ALL if c != 7], novel_fraction=0.5)
    assert len({*whole.novel} ^ {*fewer.novel}) <= 2


def test_enough_novel_classes_are_halved_and_fewer_are_shared():
    halved = split(novel_classes=NAMES[:4])
    assert not halved.shared
    assert (len(halved.val), len(halved.test)) == (2, 2)
    shared = split(novel_classes=NAMES[:3])
    assert shared.shared
    assert shared.val == shared.test == (0, 1, 2)


@given(st.integers(2, 64), st.integers(1, 12))
def test_what_is_val_and_what_is_test_does_not_depend_on_the_ways_of_an_episode(n_way, count):
    assert split(novel_classes=NAMES[:count], n_way=n_way) == split(novel_classes=NAMES[:count])


def test_halves_too_small_for_an_episode_are_refused_with_a_cure_that_works(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    settings = config(root, novel_classes=NAMES[:4], n_way=3)
    for name in ("val", "test"):
        with pytest.raises(DataError, match=r"shows 2 of 2 .*same classes in val and test"):
            load_image_set(settings, name)
    file = written(tmp_path, {"val": list(NAMES[:4]), "test": list(NAMES[:4])})
    val, test = (load_image_set(config(root, split_file=file, n_way=3), n) for n in ("val", "test"))
    assert val.names == test.names == NAMES[:4]
    assert not {*val.rows} & {*test.rows}


def test_images_are_divided_where_only_some_classes_are_shared(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    file = written(tmp_path, {"val": list(NAMES[:4]), "test": list(NAMES[2:7])})
    val, test = (load_image_set(config(root, split_file=file), n) for n in ("val", "test"))
    assert (val.names, test.names) == (NAMES[:4], NAMES[2:7])
    assert not {*val.rows} & {*test.rows}
    assert len(val) + len(test) == 32
    assert np.bincount(val.labels, minlength=4).min() > 0
    assert np.bincount(test.labels, minlength=5).min() > 0


def test_shared_classes_are_seen_on_different_images(tmp_path):
    settings = config(write_yolo(tmp_path / "shapes"), novel_classes=NAMES[:3])
    val, test = (load_image_set(settings, name) for name in ("val", "test"))
    assert val.names == test.names == NAMES[:3]
    assert not {*val.rows} & {*test.rows}
    assert len(val) + len(test) == 32
    assert np.bincount(val.labels, minlength=3).min() > 0
    assert np.bincount(test.labels, minlength=3).min() > 0


def test_base_classes_alone_make_all_others_novel():
    parts = split(base_classes=NAMES[:10])
    assert parts.base == tuple(range(10))
    assert parts.novel == tuple(range(10, 16))


def test_both_lists_leave_the_rest_out():
    parts = split(base_classes=NAMES[:4], novel_classes=NAMES[4:8])
    assert parts.base == (0, 1, 2, 3)
    assert parts.novel == (4, 5, 6, 7)


def written(tmp_path, content):
    file = tmp_path / "split.yaml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return file


def test_a_file_names_val_and_test(tmp_path):
    file = written(tmp_path, {"val": [NAMES[3], NAMES[1]], "test": [NAMES[2]]})
    parts = split(split_file=file, novel_classes=NAMES[5:7])
    assert (parts.val, parts.test) == ((1, 3), (2,))
    assert parts.base == (0, *range(4, 16))


def test_a_file_names_novel_and_base(tmp_path):
    file = written(tmp_path, {"novel": list(NAMES[:4]), "base": list(NAMES[8:])})
    parts = split(split_file=file, n_way=2)
    assert parts.novel == (0, 1, 2, 3)
    assert parts.base == tuple(range(8, 16))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"novel": ["clas 3"]}, "unknown class 'clas 3'; did you mean 'class 3'"),
        ({"novel": ["99"]}, "unknown class '99'; the dataset has 16 classes: class 0, "),
        ({"novel": "class 3"}, "must be a list of class names"),
        ({"val": ["class 3"]}, "must have the keys val and test, or novel"),
        ({"novel": ["class 3"], "extra": []}, "must have the keys"),
        ("[a", "not valid YAML"),
        ("text", "must have the keys"),
        ({"novel": ["class 3"], "base": ["class 3"]}, "'class 3' is also novel"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        split(split_file=written(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"split_file: .*missing\.yaml: no such file"):
        split(split_file=tmp_path / "missing.yaml")


def test_base_and_novel_may_not_overlap():
    with pytest.raises(DataError, match="base_classes: 'class 2' is also novel"):
        split(base_classes=NAMES[:3], novel_classes=NAMES[2:5])


def test_all_classes_as_base_leave_none_novel():
    with pytest.raises(DataError, match="no class is left for 'val'"):
        split(base_classes=NAMES)


def test_an_unknown_name_is_refused_at_the_door_with_the_nearest(tmp_path):
    root = write_yolo(tmp_path / "shapes", count=4)
    with pytest.raises(DataError, match="novel_classes: unknown class 'Class 1'; did you mean"):
        check_data(config(root, novel_classes=("Class 1",)))
    assert not (tmp_path / "cache").exists()


def test_a_name_that_looks_like_a_number_is_a_name_first():
    names = ("1", "0", "dog", "cat")
    parts = split_classes(DataConfig(novel_classes=("0", "3")), names, range(4))
    assert parts.novel == (1, 3)


@pytest.mark.timeout(60)  # a minute and a half when every name is compared with every other one
def test_many_classes_are_divided_at_once(tmp_path):
    names = tuple(f"class {i}" for i in range(100_000))
    found = split_classes(DataConfig(base_classes=names[::2]), names, range(len(names)))
    assert (len(found.base), len(found.novel)) == (50_000, 50_000)
    (tmp_path / "split.yaml").write_text("novel: ['" + "9" * 5000 + "']")
    with pytest.raises(DataError, match="unknown class '9999"):
        split_classes(DataConfig(split_file=tmp_path / "split.yaml"), NAMES, ALL)
