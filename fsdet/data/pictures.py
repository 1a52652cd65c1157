"""Decodes image files and video frames to RGB arrays."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps

from fsdet.data.image_set import Array
from fsdet.errors import DataError

os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is broken is told in our own words


class UnreadableError(Exception):
    """A file that is no picture, or only part of one."""


def open_image(file: Path) -> Array:
    """(H, W, 3) uint8 RGB, turned as its EXIF orientation says.

    Raises:
        UnreadableError: it cannot be decoded.
        DataError: the disk or the permissions do not let it be read, which is no fault of the file's content.
    """
    try:
        with Image.open(file) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except Exception as error:  # Pillow's plug-ins raise what they like on broken files
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{file}: cannot be read ({error.strerror})") from None
        raise UnreadableError(str(error)) from None


def read_frames(file: Path, frames: Sequence[int]) -> Iterator[Array | None]:
    """(H, W, 3) uint8 RGB of each of the rising `frames`, in one pass; None for those beyond the end."""
    with _video(file) as video:
        position = 0
        for frame in frames:
            there = True
            while there and position <= frame:
                there = video.grab()
                position += 1
            found, picture = video.retrieve() if there else (False, None)
            yield cv2.cvtColor(np.asarray(picture), cv2.COLOR_BGR2RGB) if found else None


def count_frames(file: Path) -> int:
    """Number of frames as the container gives it; 0 if the video cannot be opened."""
    with _video(file) as video:
        return max(0, int(video.get(cv2.CAP_PROP_FRAME_COUNT))) if video.isOpened() else 0


@contextlib.contextmanager
def _video(file: Path) -> Iterator[cv2.VideoCapture]:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    video = cv2.VideoCapture(str(file))
    try:
        yield video
    finally:
        video.release()
