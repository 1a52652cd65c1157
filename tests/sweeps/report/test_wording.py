"""Numbers and lists in words."""

from __future__ import annotations

import pytest

from sweeps.report.wording import count, join, number, share


def test_lists_end_with_and():
    assert join(["a"]) == "a"
    assert join(["a", "b", "c"]) == "a, b and c"
    assert join([]) == ""


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 4, "25 %"), (1, 1000, "under 1 %"), (0, 9, "0 %"), (0, 0, "0 %")],
)
def test_small_shares_are_not_called_nothing(part, whole, text):
    assert share(part, whole) == text


@pytest.mark.parametrize(
    ("value", "text"), [(42_123.0, "42,100"), (0.012345, "0.0123"), (999.9, "1,000"), (8.0, "8")]
)
def test_numbers_have_no_exponent(value, text):
    assert number(value) == text


def test_one_is_singular():
    assert (count(1, "trial"), count(2, "trial")) == ("1 trial", "2 trials")
