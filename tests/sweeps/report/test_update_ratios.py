"""Update ratios over multipliers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import small_spec
from made_up_sweep import made_up_data

from sweeps.report.update_ratios import slope_of, updates_section


def test_proportional_modules_are_told_from_others():
    section = updates_section(made_up_data(60))
    assert section.sentence == (
        "Update ratios: that of scs fusion grows in proportion to the multiplier (slope 1.00); that of "
        "detection head grows with the multiplier, but less than in proportion (slope 0.50)."
    )
    assert [f.key for f in section.figures] == ["updates_scs_fusion", "updates_detection_head"]


def test_slopes_are_those_of_powers_and_noise_has_none():
    x = [float(i) for i in range(1, 20)]
    assert slope_of(x, [v**0.7 for v in x]) == pytest.approx(0.7)
    assert slope_of(x, [1.0, 2.0] * 9 + [1.0]) is None


def test_without_a_searched_multiplier_nothing_is_drawn():
    data = replace(made_up_data(4), spec=small_spec())
    assert updates_section(data).figures == ()
