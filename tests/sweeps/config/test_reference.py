"""The reference has every key, and the page in docs/ is the generated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsdet.config import TrainConfig
from sweeps.config import SweepSpec
from sweeps.config.reference import to_markdown
from sweeps.schema import main

PAGE = Path(__file__).parents[3] / "docs" / "yaml_reference.md"


def row(key: str) -> list[str]:
    """The cells of the first row of `key`."""
    line = next(line for line in to_markdown().splitlines() if line.startswith(f"| `{key}` |"))
    return [cell.strip() for cell in line.split(" | ")][1:]


def test_the_page_is_that_of_the_code(capsys):
    assert main(["--markdown"]) == 0
    assert PAGE.read_text(encoding="utf-8") == capsys.readouterr().out, (
        "run: python -m sweeps.schema --markdown > docs/yaml_reference.md"
    )


@pytest.mark.parametrize("model", [SweepSpec, TrainConfig])
def test_every_key_has_a_row_with_a_meaning(model):
    for key in model.model_fields:
        assert len(row(key)[3]) > 10, key


@pytest.mark.parametrize(
    ("key", "cells"),
    [
        ("lr", ["number", "0.0001", "> 0"]),
        ("image_size", ["integer", "128", "≥ 64; ≤ 2048; a multiple of 32"]),
        ("gradient_clip_mode",
          ["`norm`, `agc`, `none`, `update`, `zclip`, `adagc`", "norm", ""]),
        ("name", ["text", "required",
          "matches `^[A-Za-z0-9][A-Za-z0-9_.-]*$`; at most 100 characters"]),
        ("budget", ["[section](#budget)", "see its section", ""]),
        ("health_norm", ["list of number, number", "[5, 15]", ""]),
    ],
)  # fmt: skip
def test_type_default_and_range_are_those_of_the_model(key, cells):
    assert row(key)[:3] == cells


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("lr", "`space`, `fixed` |"),
        ("n_way", "`fixed` |"),
        ("explosion_ratio", "`fixed` |"),
        ("device", "set by the sweep |"),
    ],
)
def test_where_a_setting_may_be_is_said(key, where):
    assert row(key)[-1] == where
