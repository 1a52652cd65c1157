"""Detections as a COCO file: images, categories, and annotations that carry a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsdet.files import write_text_atomic
from fsdet.inference.predictor import NamedDetections


class CocoFile:
    """Gathers detections picture by picture.

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
        """Add one picture.

        Args:
            size: height and width.
            found: in this picture.
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
