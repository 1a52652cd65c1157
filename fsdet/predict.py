"""`python -m fsdet.predict …`: find the objects of support images in images and videos."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fsdet.command import ExitCode, read_flags, run_command
from fsdet.errors import ConfigError


@dataclass(frozen=True)
class PredictConfig:
    """Find the objects of support images in images and videos.

    Writes annotated copies, and detections.json: a COCO file whose annotations carry scores, with boxes in
    pixels of the originals. An image or video that cannot be decoded is skipped and listed at the end.
    --example in place of --supports and --images searches an example of the checkpoint's own dataset.

    Exit code: 0 if all were searched, 1 if some were skipped, 2 if none could be searched or a flag is wrong.
    """

    checkpoint: Path
    """Of stage 2 or 3: a file, the folder of a run, or the name of a sweep (its best trial)."""
    supports: tuple[Path, ...] = ()
    """About three images that the object fills; or a folder of them; or a folder of such folders, one per class."""
    images: tuple[Path, ...] = ()
    """Images, folders of images, videos."""
    example: bool = False
    """Write supports and images of a few novel classes to the folder `example` of the results, and search these."""
    out: Path = Path("predictions")
    """Folder of the results."""
    score_threshold: float | None = None
    """Lowest score of a detection, 0 … 1; None for the best on validation, which the checkpoint carries."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""


def parse(arguments: Sequence[str]) -> PredictConfig:
    """The command line's options.

    Raises:
        ConfigError: see `read_flags`; or no supports or images, more than an example, or a score threshold outside
            0 … 1.
        SystemExit: with code 0, after `--help`.
    """
    config = read_flags(PredictConfig, arguments, "python -m fsdet.predict")
    for name in ("supports", "images"):
        if config.example and getattr(config, name):
            raise ConfigError(f"example: brings its own {name}; remove --example or --{name}")
        if not config.example and not getattr(config, name):
            raise ConfigError(
                f"{name}: at least one path is needed, but got none; name a file or a folder, or search "
                "an example with --example"
            )
    threshold = config.score_threshold
    if threshold is not None and not 0 <= threshold <= 1:
        raise ConfigError(f"score_threshold: must lie in 0 … 1, but got {threshold:g}")
    return config


def run() -> int:
    """Search the inputs of the command line, then list the skipped ones."""
    config = parse(sys.argv[1:])
    from fsdet.inference.job import predict

    done = predict(
        config.checkpoint,
        config.supports,
        config.images,
        config.out,
        config.score_threshold,
        config.device,
    )
    for reason in done.skipped:
        print(f"error: {reason}", file=sys.stderr)
    if not done.searched:
        return ExitCode.MISTAKE
    print(done.summary)
    return ExitCode.NOTHING_FOUND if done.skipped else ExitCode.OK


def main() -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return run_command(run, "interrupted; nothing but finished images and videos was written")


if __name__ == "__main__":
    sys.exit(main())
