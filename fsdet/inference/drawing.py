"""Draws what was found: a box in the colour of its class, with name and score."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw, ImageFont

from fsdet.data.image_set import Array
from fsdet.inference.predictor import NamedDetections

COLOURS = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6",
    "#bfef45", "#fabed4",
)  # fmt: skip
"""One for each class, then from the start again."""
LEAST_SIDE = 512
"""Pictures with a shorter longer side are enlarged, so that names can be read in them."""


def draw(picture: Array, found: NamedDetections) -> Image.Image:
    """A copy of the picture with all boxes, the best on top; small pictures are enlarged by a whole factor.

    Args:
        picture: (H, W, 3) uint8 RGB.
        found: boxes in its pixels.
    """
    image = Image.fromarray(picture)
    factor = math.ceil(LEAST_SIDE / max(image.size))
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor))
    pen, side = ImageDraw.Draw(image), max(image.size)
    font, width = ImageFont.load_default(max(16, side // 40)), max(2, side // 250)
    for place in reversed(range(len(found.scores))):
        label = int(found.labels[place])
        colour = COLOURS[label % len(COLOURS)]
        left, top, right, bottom = (found.boxes[place] * factor).tolist()
        pen.rectangle((left, top, right, bottom), outline=colour, width=width)
        text = f"{found.names[label]} {found.scores[place]:.2f}"
        _write(pen, text, (left, top), image.size, font, colour)
    return image


def _write(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: str,
) -> None:
    """A line of text on a patch of colour above `corner`, or below it where the picture ends."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    width, height, margin = right - left, bottom - top, 3
    x = max(0, min(corner[0], size[0] - width - 2 * margin))
    y = corner[1] - height - 2 * margin
    y = corner[1] if y < 0 else y
    pen.rectangle((x, y, x + width + 2 * margin, y + height + 2 * margin), fill=colour)
    pen.text((x + margin - left, y + margin - top), text, _ink(colour), font)


def _ink(colour: str) -> str:
    """Black on light colours, white on dark ones."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
