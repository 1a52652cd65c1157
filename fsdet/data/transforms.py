"""Changes of an image together with its boxes."""

from __future__ import annotations

import numpy as np

from fsdet.data.image_set import Array


def mirror(image: Array, boxes: Array) -> tuple[Array, Array]:
    """Left and right exchanged.

    Args:
        image: (H, W, 3).
        boxes: (m, 4) xyxy in pixels.
    """
    width = image.shape[1]
    return image[:, ::-1], np.stack(
        [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1
    )


def letterbox(image: Array, boxes: Array, size: int) -> tuple[Array, Array]:
    """The image scaled to fit a grey square of `size` pixels, in its middle, and its boxes.

    Args:
        image: (H, W, 3) uint8.
        boxes: (m, 4) xyxy in pixels of `image`.
    """
    from PIL import Image

    height, width = image.shape[:2]
    scale = size / max(height, width)
    new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (size - new_width) // 2, (size - new_height) // 2
    canvas = np.full((size, size, 3), 114, np.uint8)
    canvas[top : top + new_height, left : left + new_width] = np.asarray(
        Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    )
    stretch = np.array([new_width / width, new_height / height] * 2, np.float32)
    return canvas, boxes * stretch + np.array([left, top] * 2, np.float32)
