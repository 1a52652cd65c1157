import pytest

from fsdet.errors import DataError
from fsdet.reading import read_json


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "x.json:1: not valid JSON (Expecting"),
        ('{"a": 1,\n"b"}', "x.json:2: not valid JSON"),
        ("[" * 100_000, "x.json: not valid JSON (it is nested too deeply)"),
        ("9" * 5000, "x.json: not valid JSON (a number of 5,000 digits)"),
        ('["\\ud800"]', "a text must not hold the character '\\ud800'"),
        ('{"\\u0000": 1}', "a text must not hold the character '\\x00'"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, text, message):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / "x.json", DataError, cure="export it again")
    assert message in str(caught.value)
    assert str(caught.value).endswith("; export it again")
    assert "\n" not in str(caught.value)


def test_a_pair_of_surrogates_is_one_character(tmp_path):
    (tmp_path / "x.json").write_text('["\\ud83d\\ude00"]')
    assert read_json(tmp_path / "x.json") == ["\U0001f600"]
