"""The debug log of a run: one line per event, two per step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdet.config import MODULES

DEBUG_LOG = "training_debug.log"

logger = logging.getLogger("fsdet.run")


@contextmanager
def debug_log(folder: Path) -> Iterator[None]:
    """Write all messages of `fsdet` to `training_debug.log` in `folder`, as `[time] LEVEL - message`."""
    handler = logging.FileHandler(folder / DEBUG_LOG, encoding="utf-8")
    handler.setFormatter(
        logging.Formatter("[%(asctime)s] %(levelname)s - %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    package = logging.getLogger("fsdet")
    before = package.level
    package.addHandler(handler)
    package.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.setLevel(before)
        handler.close()


def log_step(values: dict[str, float], level: int) -> None:
    """Two lines: the gradient norm before clipping, and every loss term raw, weighted and as a share."""
    clipped = "clipped" if values["grad/clipped"] else "not clipped"
    modules = ", ".join(f"{name} {values[f'grad/norm/{name}']:.4g}" for name in MODULES)
    step = int(values["step"])
    logger.log(
        level, "step %d: Gradient norm %.6g (%s): %s", step, values["grad/norm"], clipped, modules
    )
    terms = [
        key.removeprefix("train/weighted/") for key in values if key.startswith("train/weighted/")
    ]
    parts = ", ".join(
        f"{term} {values[f'train/loss/{term}']:.4g} -> {values[f'train/weighted/{term}']:.4g} "
        f"({100 * values[f'train/share/{term}']:.0f} %)"
        for term in terms
    )
    logger.log(
        level, "step %d: Loss breakdown: total %.4g = %s", step, values["train/loss/total"], parts
    )


def log_metrics(what: str, metrics: dict[str, float]) -> None:
    """One line with the result of an evaluation; `what` names it."""
    parts = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    logger.info("%s: %s", what, parts)
