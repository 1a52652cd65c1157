"""Outputs of `python -m fsdet.predict`: a COCO file of detections, and annotated copies of the images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fsdet.data.image_set import Array
from fsdet.files import write_text_atomic
from fsdet.inference.predictor import NamedDetections


class CocoFile:
    """Collects detections image by image.

    Args:
        names: of the classes; category 1 is the first.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._categories = [{"id": label, "name": name} for label, name in enumerate(names, 1)]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def __len__(self) -> int:
        return len(self._annotations)

    def add(self, size: tuple[int, int], found: NamedDetections, **where: Any) -> None:
        """Add one image.

        Args:
            size: height and width.
            found: in this image.
            **where: it comes from: `file_name`, and `frame` (from 0) of a video.
        """
        image = len(self._images) + 1
        self._images.append({"id": image, **where, "height": size[0], "width": size[1]})
        boxes, scores, labels = found.boxes.tolist(), found.scores.tolist(), found.labels.tolist()
        for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels, strict=True):
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image,
                    "category_id": label + 1,
                    "bbox": [round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    "area": round((x2 - x1) * (y2 - y1), 2),
                    "iscrowd": 0,
                    "score": round(score, 5),
                }
            )

    def write(self, path: Path) -> None:
        """Write the file, atomically."""
        content = {
            "images": self._images,
            "categories": self._categories,
            "annotations": self._annotations,
        }
        write_text_atomic(path, json.dumps(content, ensure_ascii=False) + "\n")


COLOURS = (
    "#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6",
    "#bfef45", "#fabed4",
)  # fmt: skip
"""Colour of each class; repeated if there are more classes."""
MIN_SIDE = 512
"""Images are enlarged if their longer side is shorter, so that class names are legible."""


def draw(pixels: Array, found: NamedDetections) -> Image.Image:
    """A copy of the image with all boxes, the best on top; small images are enlarged by a whole factor.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        found: boxes in its pixels.
    """
    image = Image.fromarray(pixels)
    factor = math.ceil(MIN_SIDE / max(image.size))
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
        _write_label(pen, text, (left, top), image.size, font, colour)
    return image


def _write_label(
    pen: ImageDraw.ImageDraw,
    text: str,
    corner: tuple[float, float],
    size: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: str,
) -> None:
    """A line of text on a coloured background above `corner`, or below it at the top of the image."""
    left, top, right, bottom = pen.textbbox((0, 0), text, font)
    width, height, margin = right - left, bottom - top, 3
    x = max(0, min(corner[0], size[0] - width - 2 * margin))
    y = corner[1] - height - 2 * margin
    y = corner[1] if y < 0 else y
    pen.rectangle((x, y, x + width + 2 * margin, y + height + 2 * margin), fill=colour)
    pen.text((x + margin - left, y + margin - top), text, _text_colour(colour), font)


def _text_colour(colour: str) -> str:
    """Black on light colours, white on dark ones."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else "white"
