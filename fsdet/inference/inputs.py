"""Inputs of inference: which files are supports, images and videos, and how an image is read from what a caller has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image

from fsdet.data.image_set import Array
from fsdet.data.images import UnreadableError, open_image, to_rgb
from fsdet.errors import DataError

ONE_CLASS = "object"
"""Name of the class where the supports give none."""
PICTURES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})


def find_supports(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """Class name -> support pictures.

    A folder of pictures is a class of the folder's name, a folder of such folders is several classes, and
    pictures named one by one are one class.

    Raises:
        DataError: nothing there, or no telling which picture belongs to which class.
    """
    if all(path.is_file() for path in paths):
        return {ONE_CLASS: [_checked(path, PICTURES) for path in paths]}
    classes: dict[str, list[Path]] = {}
    for folder in [inner for path in paths for inner in _class_folders(path)]:
        if folder.name in classes:
            raise DataError(f"{folder}: supports: two folders of this name; rename one")
        classes[folder.name] = _files(folder, PICTURES)
    return classes


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """The pictures and videos named, those of a folder in the order of their names.

    Raises:
        DataError: a path is not there or is of another kind, or a folder holds none.
    """
    kinds = PICTURES | VIDEOS
    return [
        file
        for path in paths
        for file in (_files(path, kinds) if path.is_dir() else [_checked(path, kinds)])
    ]


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEOS


def _class_folders(path: Path) -> list[Path]:
    """The folder itself if it holds pictures, else the folders in it."""
    if not path.is_dir():
        _checked(path, PICTURES)
        raise DataError(
            f"{path}: supports: a picture beside folders belongs to no class; put it into one of the folders"
        )
    inner = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    loose = [p for p in path.iterdir() if p.suffix.lower() in PICTURES]
    if inner and loose:
        raise DataError(
            f"{path}: supports: holds both pictures ({loose[0].name}) and folders ({inner[0].name}); a class is a "
            "folder of pictures, so move the pictures into one"
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
