"""The figures as PNG files, drawn by Kaleido in a browser of the Chrome family, without a network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fsdet.files import atomic_path
from sweeps.report.page import plot_of
from sweeps.report.section import Figure

WIDTH, HALF, SCALE = 1000, 560, 1.5
"""Width of a picture, of one that stands beside another, and pixels for each of theirs."""
SECONDS = 30
"""Time for one picture."""
CURE = "pictures need Chrome, Chromium or Edge; install one, or run `plotly_get_chrome`, then this again"


class PicturesError(Exception):
    """The pictures cannot be drawn; the message is for the user."""


def write_pictures(figures: Sequence[Figure], folder: Path) -> list[Path]:
    """Write every figure to `folder`, and remove older pictures there.

    Raises:
        PicturesError: there is no browser, or it failed.
        OSError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = _draw(figures)
    paths = []
    for figure, image in zip(figures, images, strict=True):
        path = folder / f"{figure.key}.png"
        with atomic_path(path) as part:
            part.write_bytes(image)
        paths.append(path)
    for path in set(folder.glob("*.png")) - set(paths):
        path.unlink()
    return paths


def _draw(figures: Sequence[Figure]) -> list[bytes]:
    """PNG of every figure, all in one browser."""
    import kaleido  # loads its machinery only where pictures are wanted
    from kaleido.errors import ChromeNotFoundError

    for name in ("kaleido", "choreographer"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what fails is raised
    try:
        with TemporaryDirectory() as name:
            folder = Path(name)
            specs = [
                {
                    "fig": _on_white(figure),
                    "path": folder / f"{number}.png",
                    "opts": {
                        "format": "png",
                        "width": HALF if figure.half else WIDTH,
                        "height": figure.height,
                        "scale": SCALE,
                    },
                }
                for number, figure in enumerate(figures)
            ]
            options = {"n": 1, "timeout": SECONDS, "mathjax": False}
            kaleido.write_fig_from_object_sync(specs, kopts=options, cancel_on_error=True)
            return [(folder / f"{number}.png").read_bytes() for number in range(len(figures))]
    except ChromeNotFoundError:
        raise PicturesError(f"left out: {CURE}") from None
    except Exception as error:  # the browser, its sandbox and its pipes fail in many ways
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PicturesError(f"left out ({reason}): {CURE}") from None


def _on_white(figure: Figure) -> dict[str, Any]:
    plot = plot_of(figure)
    plot["layout"]["paper_bgcolor"] = "#ffffff"
    return plot
