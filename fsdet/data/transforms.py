"""Changes of an image together with its boxes."""

from __future__ import annotations

import numpy as np

from fsdet.data.image_set import Array

GREY = 114
"""What is shown where a picture has no pixels: beside it, and behind transparent ones."""


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

    extent = np.array(image.shape[1::-1])
    (width, height), (left, top) = _fitted(extent, size)
    canvas = np.full((size, size, 3), GREY, np.uint8)
    canvas[top : top + height, left : left + width] = np.asarray(
        Image.fromarray(image).resize((int(width), int(height)), Image.Resampling.BILINEAR)
    )
    return canvas, letterbox_boxes(boxes, extent[None], size)


def letterbox_boxes(boxes: Array, extents: Array, size: int) -> Array:
    """Where `letterbox` puts boxes.

    Args:
        boxes: (m, 4) xyxy in pixels of their images.
        extents: (m, 2) or (1, 2) width and height of the image of each box.
        size: side of the square.
    """
    fitted, corner = _fitted(extents, size)
    stretch = (fitted / extents).astype(np.float32)
    moved = boxes * np.tile(stretch, 2) + np.tile(corner.astype(np.float32), 2)
    return moved.astype(np.float32)


def _fitted(extents: Array, size: int) -> tuple[Array, Array]:
    """Width and height that an image of `extents` (…, 2) is scaled to, and its left and upper margin."""
    scale = size / extents.max(axis=-1, keepdims=True)
    fitted = np.maximum(1, np.round(extents * scale)).astype(np.int64)
    return fitted, (size - fitted) // 2
