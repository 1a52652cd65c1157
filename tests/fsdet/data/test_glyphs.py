from functools import cache

import numpy as np
import pytest

from fsdet.data import glyphs
from fsdet.data.glyphs import (
    NEAR_DUPLICATE,
    distinct_glyphs,
    family_labels,
    load_classes,
    render_glyph,
    select_classes,
)


@cache
def selected() -> dict[str, list[str]]:
    return select_classes()


def test_the_committed_record_is_what_the_selection_gives():
    assert load_classes() == selected()


def test_splits_are_disjoint_and_of_the_promised_size():
    splits = load_classes()
    codes = [code for split in splits.values() for code in split]
    assert set(splits) == {"base", "val", "test"}
    assert len(codes) == len(set(codes))
    assert (len(splits["val"]), len(splits["test"])) == (60, 100)
    assert len(splits["base"]) > 500


def test_no_novel_glyph_looks_like_another():
    splits = load_classes()
    vectors = {
        name: np.stack([glyphs._thumbnail(render_glyph(code)) for code in codes])
        for name, codes in splits.items()
    }
    for one, other in (("base", "val"), ("base", "test"), ("val", "test")):
        assert (vectors[one] @ vectors[other].T).max() <= NEAR_DUPLICATE


@pytest.mark.slow
def test_a_family_lies_in_one_split():
    glyphs = distinct_glyphs()
    split_of = {code: name for name, codes in load_classes().items() for code in codes}
    splits: dict[int, set[str]] = {}
    for code, label in zip(glyphs, family_labels(glyphs), strict=True):
        splits.setdefault(int(label), set()).add(split_of[code])
    assert {len(names) for names in splits.values()} == {1}


TWINS = {
    "recoloured circles": ("1F7E2", "1F7E3", "1F534", "1F535"),
    "a coloured circle and the full moon": ("1F7E2", "1F315"),
    "recoloured hearts": ("1F499", "1F49A", "1F49B", "1F9E1"),
    "faces under a halo, a hat, tears": ("1F600", "1F607", "1F920", "1F602"),
    "the same outline": ("1F532", "1F533"),
    "mirror images": ("1F448", "1F449"),
}


@pytest.mark.parametrize("codes", TWINS.values(), ids=TWINS)
def test_twins_are_of_one_family(codes):
    glyphs = {code: render_glyph(code) for code in codes}
    assert set(family_labels(glyphs)) == {0}


def test_other_objects_are_of_other_families():
    codes = ("1F436", "1F34E", "1F697", "1F419", "1F3B8", "1F332")
    glyphs = {code: render_glyph(code) for code in codes}
    assert len(set(family_labels(glyphs))) == len(codes)


def test_a_glyph_is_cropped_to_what_can_be_seen():
    alpha = np.asarray(render_glyph("1F436").getchannel("A")) > 127
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_glyphs_are_in_colour():
    pixels = np.asarray(render_glyph("1F436").convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() > 50


def test_a_code_point_without_ink_draws_nothing():
    assert render_glyph("20").size == (0, 0)
