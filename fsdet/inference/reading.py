"""Pictures as people have them: files, PIL images or arrays."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from fsdet.data.image_set import Array
from fsdet.data.pictures import UnreadableError, open_image, to_rgb
from fsdet.errors import DataError

Picture: TypeAlias = str | Path | Image.Image | Array
"""A file, a PIL image, or (H, W, 3) uint8 RGB."""


def read_picture(picture: Picture) -> Array:
    """(H, W, 3) uint8 RGB, the right way up: as a viewer shows it that heeds the EXIF orientation.

    Raises:
        DataError: no such file, not an image, or an array of another shape or type.
    """
    if isinstance(picture, str | Path):
        return _read_file(Path(picture))
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        got = getattr(picture, "dtype", type(picture).__name__)
        raise DataError(f"image: must be a file, a PIL image or a uint8 array, but got {got}")
    if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
        raise DataError(
            f"image: an array must be (height, width, 3) RGB, but got shape {picture.shape}"
        )
    return picture


def _read_file(path: Path) -> Array:
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    try:
        return open_image(path)
    except UnreadableError as error:
        raise DataError(f"{path}: cannot be decoded as an image ({error}); remove it") from None
