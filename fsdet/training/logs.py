"""The debug log of a run: one line per event, two per step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsdet.config import MODULES
from fsdet.progress import STEP_LOGGER

DEBUG_LOG = "training_debug.log"

logger = logging.getLogger("fsdet.run")
step_logger = logging.getLogger(STEP_LOGGER)


class DebugFormatter(logging.Formatter):
    """`[time] LEVEL - message`. INFO is called NOTE: people search this file for `nan` and `inf`."""

    def __init__(self) -> None:
        super().__init__("[%(asctime)s] %(level)s - %(message)s", "%Y-%m-%d %H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.level = "NOTE" if record.levelno == logging.INFO else record.levelname
        return super().formatMessage(record)


@contextmanager
def debug_log(folder: Path) -> Iterator[None]:
    """Write all messages of `fsdet` to `training_debug.log` in `folder`."""
    handler = logging.FileHandler(folder / DEBUG_LOG, encoding="utf-8")
    handler.setFormatter(DebugFormatter())
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
    """Two lines: the gradient norm before clipping, and every loss term raw, weighted and as a share.

    The first ends with the largest root mean square of g²/v, if there is one, and the spike score of the norm; the
    second with that of the loss.
    """
    clipped = "clipped" if values["grad/clipped"] else "not clipped"
    modules = ", ".join(f"{name} {values[f'grad/norm/{name}']:.4g}" for name in MODULES)
    step = int(values["step"])
    rms = f", g²/v {values['grad/rms']:.3g}" if "grad/rms" in values else ""
    step_logger.log(
        level,
        "step %d: Gradient norm %.6g (%s): %s%s, spikes %.1f %%",
        *(step, values["grad/norm"], clipped, modules, rms, 100 * values["grad/spike_score"]),
    )
    terms = [
        key.removeprefix("train/weighted/") for key in values if key.startswith("train/weighted/")
    ]
    parts = ", ".join(
        f"{term} {values[f'train/loss/{term}']:.4g} -> {values[f'train/weighted/{term}']:.4g} "
        f"({100 * values[f'train/share/{term}']:.0f} %)"
        for term in terms
    )
    step_logger.log(
        level,
        "step %d: Loss breakdown: total %.4g = %s, spikes %.1f %%",
        *(step, values["train/loss/total"], parts, 100 * values["train/spike_score"]),
    )


def log_metrics(what: str, metrics: dict[str, float], note: str = "") -> None:
    """The result of an evaluation: a short row, and all metrics in the debug log.

    Args:
        what: names the evaluation.
        metrics: of it.
        note: added to the row.
    """
    name = next((key for key in metrics if key.endswith("AP50")), None)
    row = [] if name is None else [f"{name} {metrics[name]:.4f}"]
    if f"{name}_se" in metrics:
        row[-1] += f" ± {metrics[f'{name}_se']:.4f}"
    row += [f"swap gap {value:.4f}" for key, value in metrics.items() if key.endswith("/swap_gap")]
    logger.info("%s: %s%s", what, ", ".join(row), note)
    every = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    logger.debug("%s: all metrics: %s", what, every)
