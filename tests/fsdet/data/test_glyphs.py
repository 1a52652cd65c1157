from functools import cache

import numpy as np

from fsdet.data import glyphs
from fsdet.data.glyphs import NEAR_DUPLICATE, load_classes, render_glyph, select_classes


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


def test_a_glyph_is_cropped_to_what_can_be_seen():
    alpha = np.asarray(render_glyph("1F436").getchannel("A")) > 127
    assert all(edge.any() for edge in (alpha[0], alpha[-1], alpha[:, 0], alpha[:, -1]))


def test_glyphs_are_in_colour():
    pixels = np.asarray(render_glyph("1F436").convert("RGB")).astype(int)
    assert np.ptp(pixels, axis=2).max() > 50


def test_a_code_point_without_ink_draws_nothing():
    assert render_glyph("20").size == (0, 0)
