"""A contact sheet of episodes, as the model sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from fsdet.data.episodes import EpisodeSource
from fsdet.data.image_set import ImageSet
from fsdet.files import atomic_path
from fsdet.structures import Batch

COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#f032e6", "#9a6324")
"""One for each class of an episode, again from the start after the last."""
COLUMNS = 4
"""Query images per row; there are as many rows as fit the height of the supports, at least two."""
QUERY, SUPPORT = 192, 88
"""Sides in pixels at which they are drawn."""
GAP, LINE = 8, 18
"""Pixels between images, and of a line of text."""


def write_sheet(sources: dict[str, EpisodeSource], count: int, path: Path) -> None:
    """Draw `count` episodes of every source, a row for each source, and save them as PNG, atomically.

    Args:
        sources: by the name of their split.
        count: episodes per split.
        path: of the PNG.
    """
    rows = [
        _beside(
            [_episode(f"{split} {i}", source.episode(i), source.image_set) for i in range(count)]
        )
        for split, source in sources.items()
    ]
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width, sum(row.height + 2 * GAP for row in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height + GAP
        ImageDraw.Draw(sheet).line((0, top, width, top), "#cccccc")
        top += GAP
    with atomic_path(path) as part:
        sheet.save(part, "PNG")


def _beside(images: list[Image.Image]) -> Image.Image:
    size = (sum(p.width + 2 * GAP for p in images), max(p.height for p in images))
    row = Image.new("RGB", size, "white")
    left = 0
    for image in images:
        row.paste(image, (left, 0))
        left += image.width + 2 * GAP
    return row


def _episode(title: str, episode: Batch, image_set: ImageSet) -> Image.Image:
    """The supports, one class per row, and the queries to their right."""
    labels = episode.classes[0].tolist()
    called = [image_set.names[label] if image_set.names else str(label) for label in labels]
    supports = _supports(episode.supports[0], called)
    lines = max(2, supports.height // (QUERY + GAP))
    shown = list(_in_turn(episode))[: lines * COLUMNS]
    queries = [_query(episode, index, called) for index in shown]
    height = max(supports.height, lines * (QUERY + GAP))
    row = Image.new("RGB", (supports.width + COLUMNS * (QUERY + GAP), height + LINE), "white")
    ImageDraw.Draw(row).text((GAP, 2), f"{title}: {', '.join(called)}", "black", _font(13))
    row.paste(supports, (0, LINE))
    for place, query in enumerate(queries):
        line, column = divmod(place, COLUMNS)
        row.paste(query, (supports.width + column * (QUERY + GAP), LINE + line * (QUERY + GAP)))
    return row


def _in_turn(episode: Batch) -> Iterator[int]:
    """Numbers of the first queries of every class, then of the second ones, and so on."""
    ways = episode.classes.shape[1]
    per_way = len(episode.images) // ways
    for place in range(per_way):
        for way in range(ways):
            yield way * per_way + place


def _supports(crops: Tensor, names: list[str]) -> Image.Image:
    """A line per class: its name and its crops, framed in its colour. crops (n_way, n_shot, 3, s, s)."""
    width = GAP + crops.shape[1] * (SUPPORT + GAP)
    sheet = Image.new("RGB", (width, len(names) * (SUPPORT + LINE + GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for way, name in enumerate(names):
        top = way * (SUPPORT + LINE + GAP)
        draw.text((GAP, top), name, COLOURS[way % len(COLOURS)], _font(13))
        for shot in range(crops.shape[1]):
            crop = _to_image(crops[way, shot]).resize((SUPPORT - 4, SUPPORT - 4))
            left = GAP + shot * (SUPPORT + GAP)
            draw.rectangle(
                (left, top + LINE, left + SUPPORT - 1, top + LINE + SUPPORT - 1),
                COLOURS[way % len(COLOURS)],
            )
            sheet.paste(crop, (left + 2, top + LINE + 2))
    return sheet


def _query(episode: Batch, index: int, names: list[str]) -> Image.Image:
    """A query image with the boxes of its targets."""
    image = _to_image(episode.images[index])
    scale = QUERY / image.width
    image = image.resize((QUERY, QUERY), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    mask = episode.targets.mask[index]
    boxes = (episode.targets.boxes[index][mask] * scale).tolist()
    ways = episode.targets.labels[index][mask].tolist()
    for box, way in zip(boxes, ways, strict=True):
        draw.rectangle(box, outline=COLOURS[way % len(COLOURS)], width=2)
    for box, way in zip(boxes, ways, strict=True):
        _tag(draw, box, names[way], COLOURS[way % len(COLOURS)])
    if not ways:
        _tag(draw, [0, 0, 0, 0], "no target", "#555555")
    return image


def _tag(draw: ImageDraw.ImageDraw, box: list[float], text: str, colour: str) -> None:
    """The class's name above its box, or inside where there is no room above."""
    font = _font(11)
    left, _, right, bottom = draw.textbbox((0, 0), text, font)
    x = min(max(0.0, box[0]), max(0.0, QUERY - (right - left) - 4))
    y = box[1] - bottom - 3 if box[1] > bottom + 3 else box[1]
    draw.rectangle((x, y, x + right - left + 4, y + bottom + 3), colour)
    draw.text((x + 2, y + 1), text, "white", font)


def _to_image(pixels: Tensor) -> Image.Image:
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
