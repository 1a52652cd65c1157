"""What the command line names: folders and files become classes of supports, and pictures and videos to search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fsdet.errors import DataError
from fsdet.inference.predictor import ONE_CLASS

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
