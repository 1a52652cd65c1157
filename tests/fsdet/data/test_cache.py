import json
import logging
import os
import signal
import stat
import time
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_data import config, load_annotated, write_yolo

from fsdet.config import DataConfig
from fsdet.data import cache
from fsdet.data.cache import CacheKey, cache_root, cached
from fsdet.data.fingerprint import BLOCK, BLOCKS, fingerprint, sampled_fingerprint
from fsdet.errors import DataError

MEGABYTE = 10**6


def key(name: str = "set", n_bytes: int = 1000, **content) -> CacheKey:
    return CacheKey(name, {"source": "made up", **content}, n_bytes)


def build(folder: Path) -> None:
    np.save(folder / "numbers.npy", np.arange(100))


def never(folder: Path) -> None:
    raise AssertionError("built again")


def load(folder: Path) -> list[int]:
    return np.load(folder / "numbers.npy").tolist()


def in_folder(root: Path, **settings) -> DataConfig:
    return DataConfig(cache_dir=root, **settings)


def test_the_second_time_nothing_is_built(tmp_path):
    first = cached(in_folder(tmp_path), key(), build, load)
    assert first == cached(in_folder(tmp_path), key(), never, load) == list(range(100))


def test_another_key_is_another_entry_and_stands_beside_the_data(tmp_path):
    for size in (8, 9):
        cached(in_folder(tmp_path), key(size=size), build, load)
    recipes = [json.loads(path.read_text()) for path in tmp_path.glob("set-*/recipe.json")]
    assert sorted(entry["size"] for entry in recipes) == [8, 9]


def build_when_both_are_there(folder: Path) -> None:
    with (folder.parent / "builds.txt").open("a") as file:
        file.write("built\n")
    while len(list(folder.parent.glob("arrived_*"))) < 2:
        time.sleep(0.05)
    build(folder)


def use_together(root: Path) -> None:
    (root / f"arrived_{os.getpid()}").touch()
    assert cached(in_folder(root), key(), build_when_both_are_there, load) == list(range(100))


def test_two_processes_that_start_together_build_once(tmp_path):
    context = get_context("spawn")
    processes = [context.Process(target=use_together, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "builds.txt").read_text() == "built\n"


def build_and_hang(folder: Path) -> None:
    (folder / "half.npy").write_bytes(bytes(1000))
    (folder.parent / "started").touch()
    time.sleep(600)


def use_and_hang(root: Path, name: str) -> None:
    cached(in_folder(root), key(name), build_and_hang, load)


@pytest.mark.parametrize("name", ["set", "other"])
def test_a_killed_builder_leaves_no_entry_and_its_rest_is_removed(tmp_path, name):
    process = get_context("spawn").Process(target=use_and_hang, args=(tmp_path, name))
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len([p for p in tmp_path.iterdir() if p.is_dir()]) == 1
    assert cached(in_folder(tmp_path), key("set"), build, load) == list(range(100))
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == [key("set").folder]


def test_what_a_living_builder_works_on_is_left_alone(tmp_path):
    process = get_context("spawn").Process(target=use_and_hang, args=(tmp_path, "other"))
    process.start()
    while not (tmp_path / "started").exists():
        time.sleep(0.05)
    cached(in_folder(tmp_path), key("set"), build, load)
    assert len(list(tmp_path.glob(".other-*.*/half.npy"))) == 1
    process.kill()
    process.join()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_builder_that_fails_leaves_nothing_that_looks_finished(tmp_path, error):
    def fail(folder: Path) -> None:
        build(folder)
        raise error("half way")

    with pytest.raises(error):
        cached(in_folder(tmp_path), key(), fail, load)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    assert cached(in_folder(tmp_path), key(), build, load) == list(range(100))


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def drop_manifest(file: Path) -> None:
    (file.parent / "manifest.json").unlink()


def break_manifest(file: Path) -> None:
    (file.parent / "manifest.json").write_text("{")


@pytest.mark.parametrize("damage", [Path.unlink, cut, flip, drop_manifest, break_manifest])
def test_a_damaged_entry_is_built_anew_with_a_warning(tmp_path, damage, caplog):
    cached(in_folder(tmp_path), key(), build, load)
    damage(tmp_path / key().folder / "numbers.npy")
    with caplog.at_level(logging.WARNING):
        assert cached(in_folder(tmp_path), key(), build, load) == list(range(100))
    assert "differs from what was written; building it again" in caplog.text
    assert cached(in_folder(tmp_path), key(), never, load) == list(range(100))


def build_large(folder: Path) -> None:
    (folder / "large.bin").write_bytes(os.urandom(MEGABYTE))
    build(folder)


def names(root: Path) -> set[str]:
    return {path.name.split("-")[0] for path in root.iterdir() if path.is_dir()}


def test_the_entries_unused_for_longest_make_room(tmp_path):
    config = in_folder(tmp_path, cache_limit_gb=0.0035)
    for age, name in enumerate(("a", "b", "c")):
        cached(config, key(name, MEGABYTE), build_large, load)
        os.utime(tmp_path / key(name).folder, (1000 + age, 1000 + age))
    cached(config, key("a", MEGABYTE), never, load)  # used again
    cached(config, key("d", MEGABYTE), build_large, load)
    assert names(tmp_path) == {"a", "c", "d"}


def test_an_entry_that_is_being_opened_is_not_removed(tmp_path):
    config = in_folder(tmp_path, cache_limit_gb=0.0015)
    cached(config, key("a", MEGABYTE), build_large, load)

    def open_and_build(folder: Path) -> list[int]:
        cached(config, key("b", MEGABYTE), build_large, load)
        return load(folder)

    assert cached(config, key("a", MEGABYTE), never, open_and_build) == list(range(100))


def test_a_memory_map_outlives_its_entry(tmp_path):
    config = in_folder(tmp_path, cache_limit_gb=0.0015)
    opened = cached(
        config,
        key("a", MEGABYTE),
        build_large,
        lambda folder: np.memmap(folder / "large.bin", np.uint8, "r"),
    )
    before = int(opened[::4096].sum())
    cached(config, key("b", MEGABYTE), build_large, load)
    assert names(tmp_path) == {"b"}
    assert int(opened[::4096].sum()) == before


def test_nothing_but_entries_is_removed(tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "manifest.json").write_bytes(bytes(3 * MEGABYTE))
    (tmp_path / ".git.lock").mkdir()
    (tmp_path / "project-0123456789abcdef").mkdir()
    (tmp_path / "project-0123456789abcdef" / "manifest.json").write_bytes(bytes(3 * MEGABYTE))
    cached(in_folder(tmp_path, cache_limit_gb=0.0015), key("a", MEGABYTE), build_large, load)
    assert (tmp_path / "weights" / "manifest.json").exists()
    assert (tmp_path / ".git.lock").exists()
    assert (tmp_path / "project-0123456789abcdef" / "manifest.json").exists()


def test_an_entry_larger_than_the_limit_is_refused_with_both_sizes(tmp_path):
    config = in_folder(tmp_path, cache_limit_gb=0.5)
    with pytest.raises(DataError, match=r"take 2 GB, but the limit is 0\.5 GB; raise cache_limit"):
        cached(config, key("set", 2 * 10**9), never, load)
    assert not names(tmp_path)


def test_an_entry_larger_than_the_disk_is_refused(tmp_path, monkeypatch):
    cached(in_folder(tmp_path), key("old"), build, load)
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=MEGABYTE))
    with pytest.raises(DataError, match=r"take 0\.002 GB, but 0\.001 GB are free"):
        cached(in_folder(tmp_path), key("set", 2 * MEGABYTE), never, load)
    assert names(tmp_path) == {"old"}


def test_a_folder_that_cannot_be_made_is_a_mistake_of_the_setting(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache_dir: .* cannot be created"):
        cached(in_folder(tmp_path / "file" / "cache"), key(), build, load)


def test_the_cache_lies_where_it_was_asked_for(monkeypatch):
    monkeypatch.setenv("FSDET_CACHE", "/from/environment")
    assert cache_root(Path("/given")) == Path("/given")
    assert cache_root(None) == Path("/from/environment")
    monkeypatch.delenv("FSDET_CACHE")
    assert cache_root(None) == Path.home() / ".cache" / "fsdet"


@pytest.mark.parametrize("fingerprint", [fingerprint, sampled_fingerprint])
@pytest.mark.parametrize("size", [0, 10, BLOCK * BLOCKS, BLOCK * BLOCKS + 1, 10**6])
def test_a_fingerprint_sees_length_start_and_end(tmp_path, size, fingerprint):
    file = tmp_path / "file"
    content = bytearray(np.random.default_rng(0).bytes(size))
    file.write_bytes(content)
    prints = {fingerprint(file)}
    file.write_bytes(bytes(content) + b"x")
    prints.add(fingerprint(file))
    for place in (0, -1) if size else ():
        changed = bytearray(content)
        changed[place] ^= 1
        file.write_bytes(changed)
        prints.add(fingerprint(file))
    assert len(prints) == (4 if size else 2)


@given(st.integers(0, 10**6 - 1))
def test_a_fingerprint_of_a_whole_file_sees_every_byte(place):
    content = bytearray(10**6)
    content[place] = 1
    with TemporaryDirectory() as folder:
        plain, changed = Path(folder) / "plain", Path(folder) / "changed"
        plain.write_bytes(bytes(10**6))
        changed.write_bytes(content)
        assert fingerprint(plain) != fingerprint(changed)


def decode_shapes(root: Path) -> None:
    load_annotated(config(root))


def test_two_processes_decode_a_dataset_once(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    context = get_context("spawn")
    processes = [context.Process(target=decode_shapes, args=(root,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list((tmp_path / "cache").glob("images-*"))) == 1


def test_a_damaged_map_of_decoded_images_is_decoded_again(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    before = np.array(load_annotated(config(root)).decoded.images)
    (file,) = (tmp_path / "cache").glob("images-*/images.npy")
    flip(file)
    np.testing.assert_array_equal(load_annotated(config(root)).decoded.images, before)


def test_a_moved_dataset_is_not_decoded_again_but_a_changed_image_is(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    load_annotated(config(root))
    moved = root.rename(tmp_path / "moved")
    load_annotated(config(moved))
    assert len(list((tmp_path / "cache").glob("images-*"))) == 1
    (moved / "images" / "val" / "000.png").write_bytes(
        (moved / "images" / "val" / "001.png").read_bytes()
    )
    load_annotated(config(moved, n_way=3))
    assert len(list((tmp_path / "cache").glob("images-*"))) == 2


@pytest.mark.slow
def test_worker_processes_decode_the_same(tmp_path):
    root = write_yolo(tmp_path / "shapes")
    alone = load_annotated(config(root, cache_dir=tmp_path / "a")).decoded
    shared = load_annotated(config(root, cache_dir=tmp_path / "b", num_workers=2)).decoded
    np.testing.assert_array_equal(alone.images, shared.images)
    np.testing.assert_array_equal(alone.original_sizes, shared.original_sizes)


def test_an_entry_has_the_permissions_that_the_umask_leaves(tmp_path):
    before = os.umask(0o077)
    try:
        cached(in_folder(tmp_path), key(), build, load)
    finally:
        os.umask(before)
    (entry,) = tmp_path.glob("set-*")
    assert stat.S_IMODE(entry.stat().st_mode) == 0o700


def test_a_user_without_a_home_is_asked_for_a_folder(monkeypatch):
    monkeypatch.delenv("FSDET_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user that the system does not know
    with pytest.raises(DataError, match="set HOME or FSDET_CACHE"):
        cache_root(None)
