"""Inputs of inference: finds supports, images and videos in paths, and reads an image from a file or from memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from fsdet.data.image_set import Array
from fsdet.data.images import IMAGE_SUFFIXES, UnreadableError, open_image, to_rgb
from fsdet.errors import DataError

DEFAULT_CLASS = "object"
"""Name of the class if the supports have none."""
VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})


def find_supports(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Class name -> support images.

    A folder of images is a class of the folder's name, a folder of such folders is several classes, and
    images named one by one are one class.

    Raises:
        DataError: a path does not exist, or the class of an image is ambiguous.
    """
    if all(path.is_file() for path in paths):
        return {DEFAULT_CLASS: [_checked(path, IMAGE_SUFFIXES) for path in paths]}
    classes: dict[str, list[Path]] = {}
    for folder in [inner for path in paths for inner in _class_folders(path)]:
        if folder.name in classes:
            raise DataError(f"{folder}: supports: two folders have this name; rename one")
        classes[folder.name] = _files(folder, IMAGE_SUFFIXES)
    return classes


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """All images and videos in `paths`, those of a folder in the order of their names.

    Raises:
        DataError: a path does not exist or is of another kind, or a folder holds none.
    """
    kinds = IMAGE_SUFFIXES | VIDEO_SUFFIXES
    return [
        file
        for path in paths
        for file in (_files(path, kinds) if path.is_dir() else [_checked(path, kinds)])
    ]


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def _class_folders(path: Path) -> list[Path]:
    """The folders in a folder, or the folder itself if it has none."""
    if not path.is_dir():
        _checked(path, IMAGE_SUFFIXES)
        raise DataError(
            f"{path}: supports: an image next to folders belongs to no class; move it into one of the folders"
        )
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose = [p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if inner and loose:
        raise DataError(
            f"{path}: supports: holds both images ({loose[0].name}) and folders ({inner[0].name}); a class is a "
            "folder of images, so move the images into one"
        )
    return inner or [path]


def _files(folder: Path, kinds: frozenset[str]) -> list[Path]:
    found = sorted(
        p for p in folder.iterdir() if p.suffix.lower() in kinds and not p.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder}: holds none of {', '.join(sorted(kinds))}; name another folder")
    return found


def _checked(path: Path, kinds: frozenset[str]) -> Path:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the path")
    if path.suffix.lower() not in kinds:
        raise DataError(f"{path}: must be one of {', '.join(sorted(kinds))}; convert it")
    return path


ImageLike: TypeAlias = str | Path | Image.Image | Array
"""A file, a PIL image, or (H, W, 3) uint8 RGB."""


def read_image(image: ImageLike) -> Array:
    """(H, W, 3) uint8 RGB, rotated by its EXIF orientation.

    Raises:
        DataError: no such file, not an image, or an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return _read_file(Path(image))
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        got = getattr(image, "dtype", type(image).__name__)
        raise DataError(f"image: must be a file, a PIL image or a uint8 array, but got {got}")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"image: an array must be (height, width, 3) RGB, but got shape {image.shape}"
        )
    return image


def _read_file(path: Path) -> Array:
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    try:
        return open_image(path)
    except UnreadableError as error:
        raise DataError(f"{path}: cannot be decoded as an image ({error}); remove it") from None
