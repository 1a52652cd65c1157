import os

import pytest

from fsdet.errors import DataError
from fsdet.reading import exists, expand_user, read_text


def test_the_user_of_a_path_must_exist():
    with pytest.raises(
        ValueError, match="~nobody_x/y: the home directory of this user is not known"
    ):
        expand_user("~nobody_x/y")
    assert expand_user("a/b").parts == ("a", "b")


def test_a_name_that_no_file_can_have_does_not_exist(tmp_path):
    assert not exists(tmp_path / ("x" * 5000))
    assert not exists(tmp_path / "a\0b")
    assert exists(tmp_path)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"a\nb\xff\n")
    with pytest.raises(DataError, match=r"x:2: cannot be read as a UTF-8 text file .*; save it as"):
        read_text(file, DataError)
    with pytest.raises(DataError, match=r"x: must have at most 3 bytes, but has 5; check"):
        read_text(file, DataError, largest=3)
    with pytest.raises(DataError, match="no such file"):
        read_text(tmp_path / "y", DataError)
    with pytest.raises(DataError, match="File name too long"):
        read_text(tmp_path / ("x" * 5000), DataError)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="it is not a regular file"):
        read_text(tmp_path / "pipe", DataError)
