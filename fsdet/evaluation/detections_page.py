"""`detections.png`: the supports of some classes beside what was found in their query images, right and wrong.

Every picture is searched for one class. A right box is green and a wrong one red, with its score; a missed object is
dashed. The colours differ for the colour-blind too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from fsdet.evaluation.findings import SearchedEpisode
from fsdet.files import atomic_path

RIGHT, WRONG, MISSED = "#00845a", "#d3370b", "#ffd320"
"""Colours of the boxes."""
EDGE = "#202020"
"""Colour around a box, which shows on every background."""
PICTURE, SUPPORT = 256, 80
"""Sides in pixels at which query images and supports are drawn."""
GAP, MARGIN, LINE = 8, 24, 24
"""Pixels between images of a class, around classes, and of a line of text."""
PAGE = 1500
"""Largest width of the page in pixels."""
MAX_SUPPORTS, MAX_QUERIES = 3, 4
"""Largest number of images of a class that are shown."""
MAX_PICTURES = 12
"""Query images on a page, at least as many as four classes have."""
EPISODES = MAX_PICTURES // 2
"""Episodes that fill a page: each has at least two classes."""

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


class Box(NamedTuple):
    """A box to draw."""

    corners: tuple[float, float, float, float]
    """xyxy in pixels of the query image."""
    colour: str
    text: str


@dataclass(frozen=True)
class Finds:
    """One query image, searched for one class."""

    image: Image.Image
    boxes: list[Box]
    """The most important one last."""
    empty: bool
    """Whether it shows no object of the class."""

    def count(self, colour: str) -> int:
        """Number of boxes of this colour."""
        return sum(box.colour == colour for box in self.boxes)


@dataclass(frozen=True)
class Strip:
    """One class: its supports beside its query images."""

    name: str
    supports: list[Image.Image]
    pictures: list[Finds]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        width = SUPPORT + len(self.pictures) * (PICTURE + GAP)
        return width, LINE + PICTURE


def write_page(
    path: Path,
    episodes: Sequence[SearchedEpisode],
    names: Sequence[str],
    threshold: float,
    heading: Sequence[str],
) -> None:
    """Draw the page and save it as PNG, atomically.

    Args:
        path: of the PNG.
        episodes: the first ones that fill the page are shown.
        names: of all classes of the image set; empty if they have none.
        threshold: detections that score less are left out.
        heading: texts above, a line or more each; the first is the title.
    """
    page = draw_page(list(_strips(episodes, names, threshold)), heading)
    with atomic_path(path) as part:
        _with_palette(page).save(part, "PNG")


def draw_page(strips: Sequence[Strip], heading: Sequence[str]) -> Image.Image:
    """The page with its heading, its legend, and one strip for each class."""
    width, height = (max(sizes) for sizes in zip(*(s.size for s in strips), strict=True))
    columns = max(1, min(len(strips), (PAGE - MARGIN) // (width + MARGIN)))
    rows = math.ceil(len(strips) / columns)
    room = columns * (width + MARGIN) - MARGIN
    title, *rest = heading
    lines = [title, *(part for line in rest for part in _wrapped(line, room, _font(15)))]
    top = MARGIN + 14 + LINE * (len(lines) + 1) + GAP
    size = (
        MARGIN + columns * (width + MARGIN),
        top + rows * (height + MARGIN),
    )
    page = Image.new("RGB", size, "white")
    _write_heading(page, lines, [finds for strip in strips for finds in strip.pictures])
    for place, strip in enumerate(strips):
        row, column = divmod(place, columns)
        _draw_strip(page, strip, MARGIN + column * (width + MARGIN), top + row * (height + MARGIN))
    return page


def _with_palette(page: Image.Image) -> Image.Image:
    """The page in 256 colours, which makes the file a third as large; those of the boxes stay exact."""
    exact = [ImageColor.getrgb(name) for name in (RIGHT, WRONG, MISSED, EDGE, "#ffffff", "#000000")]
    reduced = page.quantize(256 - len(exact), dither=Image.Dither.NONE)
    palette = (reduced.getpalette() or [])[: 3 * (256 - len(exact))]
    pixels, places = np.asarray(page), np.array(reduced)
    for place, colour in enumerate(exact, len(palette) // 3):
        places[(pixels == colour).all(axis=2)] = place
    image = Image.fromarray(places)
    image.putpalette([*palette, *(part for colour in exact for part in colour)])
    return image


def _strips(
    episodes: Sequence[SearchedEpisode], names: Sequence[str], threshold: float
) -> Iterator[Strip]:
    """The classes of the episodes in their order, as many as fill the page."""
    left = None
    for one in episodes:
        classes = one.episode.classes[0].tolist()
        per_way = len(one.found) // len(classes)
        shown = min(per_way, MAX_QUERIES)
        left = max(4, MAX_PICTURES // shown) if left is None else left
        for way, label in enumerate(classes[:left]):
            crops = one.episode.supports[0, way]
            supports = [_to_image(crop) for crop in crops[:MAX_SUPPORTS]]
            queries = range(way * per_way, way * per_way + shown)
            pictures = [_finds(one, query, way, threshold) for query in queries]
            more = f" ({len(supports)} of {len(crops)} supports)" if len(crops) > 3 else ""
            yield Strip((names[label] if names else f"class {label}") + more, supports, pictures)
        left -= min(left, len(classes))


def _finds(one: SearchedEpisode, query: int, way: int, threshold: float) -> Finds:
    """A query image with what was found of the class `way`, and what was missed."""
    mask = one.episode.targets.mask[query]
    boxes = one.episode.targets.boxes[query][mask].tolist()
    own = (one.episode.targets.labels[query][mask] == way).tolist()
    found, reached = one.found[query], set[int]()
    right: list[Box] = []
    wrong: list[Box] = []
    for box, score, label, target in zip(
        found.boxes.tolist(),
        found.scores.tolist(),
        found.labels.tolist(),
        one.matches[query].tolist(),
        strict=True,
    ):
        if label == way and score >= threshold:
            kind, colour = (wrong, WRONG) if target < 0 else (right, RIGHT)
            kind.append(Box(tuple(box), colour, f"{score:.2f}"))
            reached.add(target)
    missed = [
        Box(tuple(box), MISSED, "missed")
        for number, (box, is_own) in enumerate(zip(boxes, own, strict=True))
        if is_own and number not in reached
    ]
    image = _to_image(one.episode.images[query])
    return Finds(image, [*missed, *reversed(wrong), *reversed(right)], empty=not any(own))


def _write_heading(page: Image.Image, heading: Sequence[str], pictures: Sequence[Finds]) -> None:
    """The lines of the heading, then the legend with the numbers on this page."""
    pen, y = ImageDraw.Draw(page), MARGIN
    for number, line in enumerate(heading):
        pen.text(
            (MARGIN, y), line, "black" if number == 0 else "#444444", _font(20 - 5 * (number > 0))
        )
        y += LINE + 6 * (number == 0)
    x, y = MARGIN, y + 8
    for colour, text in ((RIGHT, "right"), (WRONG, "wrong"), (MISSED, "missed")):
        swatch = (float(x), y + 2.0, x + 26.0, y + 18.0)
        _outline(pen, swatch, colour, dashed=colour == MISSED)
        label = f"{text}: {sum(finds.count(colour) for finds in pictures)}"
        pen.text((x + 34, y), label, "black", _font(15))
        x += 34 + int(pen.textlength(label, _font(15))) + 28


def _draw_strip(page: Image.Image, strip: Strip, left: int, top: int) -> None:
    """Draw a class with its upper left corner at `left`, `top`."""
    pen = ImageDraw.Draw(page)
    name = _shortened(strip.name, strip.size[0], _font(15))
    pen.text((left, top), name, "black", _font(15))
    for place, crop in enumerate(strip.supports):
        size = (SUPPORT, SUPPORT)
        page.paste(
            crop.resize(size, Image.Resampling.BICUBIC),
            (left, top + LINE + place * (SUPPORT + GAP)),
        )
    for place, finds in enumerate(strip.pictures):
        x = left + SUPPORT + GAP + place * (PICTURE + GAP)
        page.paste(_picture(finds), (x, top + LINE))


def _picture(finds: Finds) -> Image.Image:
    """A query image with its boxes."""
    scale = PICTURE / finds.image.width
    image = finds.image.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for box in finds.boxes:
        corners = tuple(min(max(scale * side, 0.0), PICTURE - 1.0) for side in box.corners)
        _outline(pen, corners, box.colour, dashed=box.colour == MISSED)
        _tag(pen, box, corners[0], corners[1])
    if finds.empty:
        note = Box((0.0, 0.0, 0.0, 0.0), EDGE, "shows none of it")
        _tag(pen, note, 0.0, float(PICTURE))
    return image


def _outline(pen: ImageDraw.ImageDraw, corners: Sequence[float], colour: str, dashed: bool) -> None:
    """A rectangle of `colour` with a thin dark edge."""
    left, top, right, bottom = (round(side) for side in corners)
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=EDGE, width=4)
    if not dashed:
        pen.rectangle((left, top, right, bottom), outline=colour, width=2)
        return
    for x in range(left, right, 10):
        for y in (top, bottom - 1):
            pen.rectangle((x, y, min(x + 5, right), y + 1), colour)
    for y in range(top, bottom, 10):
        for x in (left, right - 1):
            pen.rectangle((x, y, x + 1, min(y + 5, bottom)), colour)


def _tag(pen: ImageDraw.ImageDraw, box: Box, left: float, top: float) -> None:
    """The text of a box above its corner, or inside at the top of the picture."""
    font = _font(14)
    width = pen.textlength(box.text, font) + 6
    x = min(max(0.0, left - 1), PICTURE - width)
    y = top - 17 if top >= 17 else top
    pen.rectangle((x, y, x + width - 1, y + 16), box.colour)
    pen.text((x + 3, y), box.text, "black" if box.colour == MISSED else "white", font)


def _wrapped(text: str, width: int, font: Font) -> Iterator[str]:
    """The text in lines of at most `width` pixels."""
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            longer = word
        line = longer
    yield line


def _shortened(text: str, width: int, font: Font) -> str:
    """`text`, cut off where it is wider than `width` pixels."""
    while font.getlength(text) > width:
        text = text[:-2].rstrip("…") + "…"
    return text


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _font(size: int) -> Font:
    return ImageFont.load_default(size)
