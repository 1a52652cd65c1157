"""Images as RGB arrays: decoding of files and video frames, letterboxing, mirroring."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps

from fsdet.data.image_set import Array
from fsdet.errors import DataError
from fsdet.files import open_regular

# broken files are reported in our own messages
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


MAX_PIXELS = 65_000_000
"""Limit for the size of an image: one of 64 megapixels, with transparency, takes 1 GB while it is decoded."""


class UnreadableError(Exception):
    """A file that is not an image, or only part of one."""


def open_image(file: Path) -> Array:
    """(H, W, 3) uint8 RGB, rotated by its EXIF orientation.

    Raises:
        UnreadableError: it cannot be decoded, or has more than `MAX_PIXELS`.
        DataError: the file cannot be read because of the disk or its permissions.
    """
    try:
        open_regular(file).close()  # Pillow would wait for the writer of a named pipe
        with _pillow_open()(file) as opened:
            check_pixels(*opened.size)
            return to_rgb(opened)
    except Exception as error:  # Pillow's plug-ins raise any exception on broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from None
        raise UnreadableError(str(error)) from None


def check_pixels(width: int, height: int) -> None:
    """Refuse an image that would take too much memory, before it is decoded.

    Raises:
        UnreadableError: it has more than `MAX_PIXELS`.
    """
    if width * height > MAX_PIXELS:
        raise UnreadableError(
            f"{width} x {height} are {width * height / 1e6:.0f} megapixels, but the limit is {MAX_PIXELS / 1e6:.0f}; "
            "make it smaller"
        )


def to_rgb(image: Image.Image) -> Array:
    """(H, W, 3) uint8 RGB of a PIL image, rotated by its EXIF orientation.

    Images of 16 bits are reduced to their upper eight bits, without stretching the range. Transparent images are
    composited over the padding grey: the colour of transparent pixels is arbitrary, and no viewer shows it.
    """
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # otherwise it would be copied
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # I;16 and its byte orders; I is how Pillow opens 16-bit PGM
        high = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(high[..., None], 3, axis=2)
    if image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (PADDING_GREY, PADDING_GREY, PADDING_GREY, 255))
        image = Image.alpha_composite(
            behind, image if image.mode == "RGBA" else image.convert("RGBA")
        )
        del behind
    if image.mode != "RGB":  # otherwise it would be copied
        image = image.convert("RGB")
    return np.asarray(image)


@cache
def _pillow_open() -> Callable[[Path], Image.Image]:
    """`Image.open` itself.

    Ultralytics replaces it by a function that reacts to a broken image by installing a package for another format.
    """
    known = [Image.open, *getattr(Image.open, "__globals__", {}).values()]
    own = (f for f in known if getattr(f, "__module__", "") == "PIL.Image")
    return next((f for f in own if f.__name__ == "open"), Image.open)


def read_frames(file: Path, frames: Sequence[int]) -> Iterator[Array | None]:
    """(H, W, 3) uint8 RGB of each of the rising `frames`, in one pass; None beyond the end."""
    with open_video(file) as video:
        position = 0
        for frame in frames:
            more = True
            while more and position <= frame:
                more = video.grab()
                position += 1
            found, image = video.retrieve() if more else (False, None)
            yield cv2.cvtColor(np.asarray(image), cv2.COLOR_BGR2RGB) if found else None


def count_frames(file: Path) -> int:
    """Number of frames as the container gives it; 0 if the video cannot be opened."""
    with open_video(file) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if video.isOpened() else 0


@contextlib.contextmanager
def open_video(file: Path) -> Iterator[cv2.VideoCapture]:
    """A video; nothing is opened that is no regular file, since a named pipe would block."""
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    video = cv2.VideoCapture(str(file)) if file.is_file() else cv2.VideoCapture()
    try:
        yield video
    finally:
        video.release()


PADDING_GREY = 114
"""Grey value of the padding of letterboxed images, and behind transparent pixels."""


def mirror(image: Array, boxes: Array) -> tuple[Array, Array]:
    """Mirror an image left to right, with its boxes.

    Args:
        image: (H, W, 3).
        boxes: (m, 4) xyxy in pixels.
    """
    width = image.shape[1]
    return cv2.flip(image, 1), np.stack(
        [width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1
    )


def letterbox(image: Array, size: int) -> Array:
    """Scale an image to fit a square and pad it with grey on both sides; see `letterbox_boxes` for its boxes.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square in pixels.

    Returns:
        (size, size, 3) uint8.
    """
    (width, height), (left, top) = _fitted(np.array(image.shape[1::-1]), size)
    canvas = np.full((size, size, 3), PADDING_GREY, np.uint8)
    canvas[top : top + height, left : left + width] = np.asarray(
        Image.fromarray(image).resize((int(width), int(height)), Image.Resampling.BILINEAR)
    )
    return canvas


def letterbox_boxes(boxes: Array, original_sizes: Array, size: int) -> Array:
    """The boxes after `letterbox`.

    Args:
        boxes: (m, 4) xyxy in pixels of their images.
        original_sizes: (m, 2) or (1, 2) width and height of the image of each box.
        size: side of the square.
    """
    fitted, corner = _fitted(original_sizes, size)
    stretch = (fitted / original_sizes).astype(np.float32)
    moved = boxes * np.tile(stretch, 2) + np.tile(corner.astype(np.float32), 2)
    return moved.astype(np.float32)


def _fitted(original_sizes: Array, size: int) -> tuple[Array, Array]:
    """Width and height that an image of `original_sizes` (…, 2) is scaled to, and its left and upper margin."""
    scale = size / original_sizes.max(axis=-1, keepdims=True)
    fitted = np.maximum(1, np.round(original_sizes * scale)).astype(np.int64)
    return fitted, (size - fitted) // 2
