import os
import stat

import pytest

from fsdet.files import atomic_path, open_regular, read_text, write_text_atomic


def test_a_text_that_fails_half_way_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text_atomic(path, "old")

    def fail() -> None:
        with atomic_path(path) as part:
            part.write_text("new, but not all of")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_named_pipe_and_a_device_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(OSError, match="not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        read_text(tmp_path)
    (tmp_path / "a.txt").write_text("ä")
    (tmp_path / "b.txt").symlink_to("a.txt")
    assert read_text(tmp_path / "b.txt") == "ä"


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_permissions_are_those_that_the_umask_leaves(umask, mode, tmp_path):
    path, before = tmp_path / "a.txt", os.umask(umask)
    try:
        write_text_atomic(path, "for some")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode
