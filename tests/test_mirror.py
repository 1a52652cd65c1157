"""The tests mirror the source, and `tests/README.md` lists what they leave out."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PACKAGES = ("fsdet", "sweeps")
LISTED = dict(
    re.findall(r"^\| `(.+\.py)` \| (.+) \|$", (TESTS / "README.md").read_text(), re.MULTILINE)
)
"""Module without a test file of its own -> what tests it."""


def test_every_module_has_a_test_file_or_is_listed():
    root = TESTS.parent
    modules = {path.relative_to(root) for name in PACKAGES for path in (root / name).rglob("*.py")}
    modules = {path for path in modules if path.name != "__init__.py"}
    without = {path for path in modules if not (TESTS / path.parent / f"test_{path.name}").exists()}
    assert {str(path) for path in without} == LISTED.keys()


def test_the_listed_test_files_exist():
    named = re.findall(r"`([\w/]+\.py)`", " ".join(LISTED.values()))
    assert [name for name in named if not (TESTS / name).exists()] == []


def test_names_of_test_files_are_unique():
    names = [path.name for path in TESTS.rglob("*.py") if path.name.startswith("test_")]
    assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
