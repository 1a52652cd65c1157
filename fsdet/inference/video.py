"""Reads and writes videos frame by frame, never a whole one in memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from fsdet.data.image_set import Array
from fsdet.data.images import open_video, read_frames
from fsdet.errors import ConfigError, DataError

DEFAULT_RATE = 25.0
"""Frames per second if a file has no frame rate."""


def frames_of(path: Path) -> Iterator[Array]:
    """(H, W, 3) uint8 RGB of every frame.

    Raises:
        DataError: no frame can be decoded.
    """
    count = 0
    for frame in read_frames(path, range(sys.maxsize)):
        if frame is None:
            break
        count += 1
        yield frame
    if not count:
        raise DataError(f"{path}: no frame of it can be decoded; convert it to H.264 in an .mp4")


def frame_rate(path: Path) -> float:
    """Frames per second."""
    with open_video(path) as video:
        rate = float(video.get(cv2.CAP_PROP_FPS))
    return rate if 0 < rate < 1000 else DEFAULT_RATE


class VideoWriter:
    """Writes an .mp4 (MPEG-4); the file appears under its name when it is complete.

    The size of the first frame is that of the video. A side of odd length loses its last pixel.

    Args:
        path: of the file.
        rate: frames per second.

    Raises:
        ConfigError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self._path, self._rate = path, rate
        self._part = path.with_name(
            f".{path.stem}.part{path.suffix}"
        )  # the suffix determines the format
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def write(self, frame: Array) -> None:
        """Append (H, W, 3) uint8 RGB."""
        if self._writer is None:
            height, width = frame.shape[:2]
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._part), code, self._rate, (width, height))
            if not self._writer.isOpened():
                raise ConfigError(f"out: {self._path} cannot be written; name another folder")
        self._writer.write(cv2.cvtColor(np.asarray(frame), cv2.COLOR_RGB2BGR))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        if kind is None and self._part.exists():
            self._part.replace(self._path)
        self._part.unlink(missing_ok=True)
