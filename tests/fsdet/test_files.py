import pytest

from fsdet.files import atomic_path, write_text_atomic


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
