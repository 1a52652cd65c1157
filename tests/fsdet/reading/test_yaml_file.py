"""What a YAML file can do to its reader: one line with file, line, rule and cure, at once."""

import time

import pytest

from fsdet.errors import ConfigError
from fsdet.reading import parse_yaml, read_yaml

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 8)}]\n" for n in range(1, 12)
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 99))
REFUSED = {
    "no key": ("a: 1\n~: 1", "x.yaml:2: keys must be text, but got '~'; put it in quotes"),
    "no key below": ("a:\n  ~: 1", "x.yaml:2: keys must be text"),
    "no key in a list": ("a:\n  - ~: 1", "x.yaml:2: keys must be text"),
    "number as key": ("5: 1", "x.yaml:1: keys must be text, but got '5'"),
    "list as key": ("? [1]\n: 2", "x.yaml:1: keys must be text, but got a sequence"),
    "long key": ("? " + "k" * 999 + "\n: 1", "a key must have at most 200 characters"),
    "key twice": ("a: {b: 1,\n  b: 2}", "x.yaml:2: key 'a.b' is here and in line 1; remove one"),
    "key twice in a line": ("{b: 1, b: 2}", "x.yaml:1: key 'b' is here and in line 1"),
    "deep": ("a: " + "[" * 100_000, "x.yaml:1: must be nested at most 50 levels deep"),
    "deep lines": ("\n".join(" " * n + "a:" for n in range(999)), "x.yaml:51: must be nested"),
    "deep by aliases": (CHAIN, "must be nested at most 50 levels deep"),
    "aliases that explode": (LAUGHS, "must hold at most 200,000 values, aliases expanded"),
    "alias of itself": ("a: &a [*a]", "x.yaml:1: *a stands for itself; remove it"),
    "tag of Python": ("a: !!python/object/apply:os.system [ls]", "x.yaml:1: the tag !!python/"),
    "tag": ("a: 1\nb: !x 1", "x.yaml:2: the tag !x is not one of !!null"),
    "set": ("a: !!set {b}", "x.yaml:1: the tag !!set is not"),
    "bad date": ("a: !!timestamp 2001-99-99", "x.yaml:1: the tag !!timestamp is not"),
    "no number": ("a: !!int x", "x.yaml:1: 'x' is no int; remove the tag"),
    "empty number": ("a: !!int ''", "x.yaml:1: '' is no int"),
    "no truth": ("a: !!bool x", "x.yaml:1: 'x' is no bool"),
    "5000 digits": ("a: " + "9" * 5000, "x.yaml:1: a number must have at most 1000 digits"),
    "900 digits": ("a: " + "9" * 900, "x.yaml:1: a whole number must have at most 64 bits"),
    "surrogate": ('a: "\\ud800"', "x.yaml:1: "),
    "null character": ('a: "\\0"', "x.yaml:1: a text must not hold the character '\\x00'"),
    "control character": ("a: 1\nb: \x01", "x.yaml:2: not valid YAML"),
    "two documents": ("a: 1\n---\na: 2", "x.yaml:2: not valid YAML"),
    "open": ("a: [", "not valid YAML"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_text_is_one_line_at_once(case):
    text, message = REFUSED[case]
    begin = time.process_time()
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, "x.yaml")
    assert time.process_time() - begin < 2
    assert str(caught.value).startswith("x.yaml:")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_dates_are_text_and_lines_are_those_of_the_keys():
    found = parse_yaml("a: 2001-99-99\nb:\n  c: {d: 1}\n  e: '='\n", "x.yaml")
    assert found.values == {"a": "2001-99-99", "b": {"c": {"d": 1}, "e": "="}}
    assert found.lines == {"a": 1, "b": 2, "b.c": 3, "b.c.d": 3, "b.e": 4}


def test_an_alias_and_a_merge_are_read():
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"
    assert parse_yaml(text, "x.yaml").values["b"] == {"x": 1, "y": 3}


def test_a_hundred_thousand_values_are_read_in_time():
    begin = time.process_time()
    found = parse_yaml(f"a: [{', '.join(map(str, range(100_000)))}]", "x.yaml")
    assert len(found.values["a"]) == 100_000
    assert time.process_time() - begin < 5


def test_numbers_may_be_keys_where_the_reader_says_so(tmp_path):
    (tmp_path / "x.yaml").write_text("names: {0: cat, 1: dog}")
    assert read_yaml(tmp_path / "x.yaml", text_keys=False).values == {"names": {0: "cat", 1: "dog"}}
