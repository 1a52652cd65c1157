import math

import pytest

from fsdet.errors import ConfigError, DataError
from fsdet.reading import read_json_lines, read_rows

GOOD = '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": "inf", "name": "x"}\n'


def test_numbers_are_read_and_a_cut_last_line_is_left_out(tmp_path):
    (tmp_path / "x").write_text(GOOD + '{"step": 3, "lo')
    assert list(read_rows(tmp_path / "x")) == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": math.inf},
    ]
    assert list(read_rows(tmp_path / "nowhere")) == []


def test_a_whole_last_line_without_its_end_counts(tmp_path):
    (tmp_path / "x").write_text(GOOD.rstrip("\n"))
    assert [line.number for line in read_json_lines(tmp_path / "x")] == [1, 2]


@pytest.mark.parametrize(
    "bad", [b"{", b"\0\0\0", b"\xff", b"", b"[" * 99_999, b'{"a": 1' + b"0" * 5000]
)
def test_a_damaged_line_is_told_with_its_number(tmp_path, bad):
    (tmp_path / "x").write_bytes(GOOD.encode() + bad + b"\n" + GOOD.encode())
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / "x", error=DataError))
    assert str(caught.value).startswith(
        f"{tmp_path / 'x'}:3: the file is damaged: this line is not JSON; "
    )


def test_a_line_without_end_is_not_read_whole(tmp_path):
    (tmp_path / "x").write_bytes(b"[" + b"1," * (1 << 20))
    with pytest.raises(ConfigError, match="x:1: the file is damaged"):
        list(read_rows(tmp_path / "x"))


def test_a_line_must_have_the_numbers_that_are_needed(tmp_path):
    (tmp_path / "x").write_text(GOOD + '{"loss": 1}\n')
    with pytest.raises(
        ConfigError, match="x:3: the file is damaged: this line has no number 'step'"
    ):
        list(read_rows(tmp_path / "x", ("step",)))
