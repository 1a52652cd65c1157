"""Settings as axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from conftest import small_spec

from sweeps.report.scales import Scale, scales_of

SPACE = {
    "lr": {"low": 0.01, "high": 1, "log": True},
    "epochs": {"low": 2, "high": 6},
    "bbox_loss": {"choices": ["wiou_v3", "ciou"]},
}


def scales() -> dict[str, Scale]:
    return {scale.key: scale for scale in scales_of(small_spec(space=SPACE, fixed={}))}


@pytest.mark.parametrize(
    ("key", "value", "position"),
    [("lr", 0.1, 0.5), ("epochs", 3, 0.25), ("bbox_loss", "ciou", 1.0)],
)
def test_positions_are_on_the_scale_of_the_search(key, value, position):
    scale = scales()[key]
    assert scale.position({key: value}) == pytest.approx(position)
    assert scale.at(position) == pytest.approx(scale.value({key: value}))


def test_a_setting_that_does_not_apply_has_no_position():
    assert all(math.isnan(scale.position({})) for scale in scales().values())


def test_grids_and_axes_of_choices_are_the_choices():
    scale = scales()["bbox_loss"]
    places, values = scale.grid(50)
    assert np.array_equal(places, [0, 1])
    assert np.array_equal(values, [0, 1])
    assert scale.axis()["ticktext"] == ["wiou_v3", "ciou"]
    assert scales()["lr"].axis()["type"] == "log"


def test_names_of_choices_are_no_tags():
    scale = Scale("x", 0, 1, choices=("<b>", "b"))
    assert scale.axis()["ticktext"][0] == "&lt;b&gt;"
