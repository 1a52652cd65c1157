"""The files that a run writes besides its checkpoints, and how they are read: one JSON line per step and evaluation."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import psutil
import torch

from fsdet.files import write_text_atomic
from fsdet.reading import Row, numbers_of, read_json_lines, read_rows
from fsdet.report import (
    BEST_EPOCH,
    BEST_FILE,
    DETECTIONS_FILE,
    EARLY_EPISODES,
    EVALUATIONS_FILE,
    FIRST_STEP_FILE,
    STEPS_FILE,
)

CONFIG_FILE = "config.yaml"
HEALTH_FILE = "health.json"
CHANGES_FILE = "changes.json"

logger = logging.getLogger("fsdet.run")


class StepHistory:
    """Per-step values: appended to `steps.jsonl` at once, and buffered until the next report.

    A resumed run drops the lines of the steps that it will repeat.
    """

    def __init__(self, folder: Path, steps_done: int) -> None:
        self._rows: list[dict[str, float]] = []
        self._file = _reopened(folder / STEPS_FILE, steps_done)

    def append(self, values: dict[str, float]) -> None:
        """Add one step. A value that is not finite is written as a string, since JSON has no such numbers."""
        self._rows.append(values)
        self._file.write(_line(values))

    def take(self) -> dict[str, np.ndarray]:
        """The steps since the last call, one float64 array per metric; NaN where it was not measured."""
        self._file.flush()
        rows, self._rows = self._rows, []
        keys = dict.fromkeys(key for row in rows for key in row)
        return {key: np.array([row.get(key, math.nan) for row in rows], np.float64) for key in keys}

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()


class EvaluationLog:
    """`evaluations.jsonl`: step, epoch, bytes of memory and metrics of every evaluation, appended at once.

    Args:
        folder: of the run.
        steps_done: a resumed run drops the lines of this step and of later ones.
        stored: the line of this step that is nevertheless kept, see `find_evaluation`.
    """

    def __init__(self, folder: Path, steps_done: int, stored: Row | None = None) -> None:
        self.stored = stored
        self._path = folder / EVALUATIONS_FILE
        lines = _lines_up_to(self._path, steps_done - 1)
        if stored is not None:
            lines.append(_line(stored))
        write_text_atomic(self._path, "".join(lines))

    def append(self, step: int, epoch: int, values: dict[str, float], device: str) -> None:
        """Add one evaluation; `values` are its metrics, and `EARLY_EPISODES` or `BEST_EPOCH` where they apply."""
        where = {"step": float(step), "epoch": float(epoch), "memory": memory(device)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({**where, **values}))


def memory(device: str) -> float:
    """Memory in bytes: of this process now, or torch's peak on the GPU."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    info = psutil.Process().memory_info()
    return float(info.rss - getattr(info, "shared", 0))  # pages of memory-mapped images are shared


def _line(values: dict[str, float]) -> str:
    return json.dumps({k: v if math.isfinite(v) else str(v) for k, v in values.items()}) + "\n"


def _reopened(path: Path, steps_done: int) -> TextIO:
    """The file, opened for appending after the lines of the steps that are not repeated."""
    write_text_atomic(path, "".join(_lines_up_to(path, steps_done)))
    return path.open("a", encoding="utf-8", buffering=1)  # line by line: others follow the run


def write_changes(folder: Path, changed: list[dict[str, Any]]) -> None:
    """`changes.json`: the changed settings with which stages of a run were resumed; no file if there were none."""
    if changed:
        write_text_atomic(folder / CHANGES_FILE, json.dumps(changed, indent=2) + "\n")
    else:
        (folder / CHANGES_FILE).unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Move what an earlier run wrote into `folder` to `earlier-N` there; the debug log is continued."""
    names = (
        *(CONFIG_FILE, STEPS_FILE, EVALUATIONS_FILE),
        *(HEALTH_FILE, CHANGES_FILE, BEST_FILE, DETECTIONS_FILE, FIRST_STEP_FILE),
    )
    files = [folder / name for name in names if (folder / name).exists()]
    if not files:
        return
    number = 1
    while (aside := folder / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for file in files:
        file.replace(aside / file.name)
    logger.info("the files of an earlier run are now in %s", aside.name)


def _lines_up_to(path: Path, step: int) -> list[str]:
    lines: list[str] = []
    if step <= 0 or not path.exists():
        return lines
    for line in read_json_lines(path):
        number = numbers_of(line.content).get("step", math.nan)
        if number > step or not line.text.endswith("\n"):
            break
        if math.isfinite(number):  # other lines were not written by a run
            lines.append(line.text)
    return lines


def load_steps(run_dir: Path) -> list[Row]:
    """One mapping per optimiser step, each with its `step`; a cut last line is left out."""
    return list(iterate_steps(run_dir))


def iterate_steps(run_dir: Path) -> Iterator[Row]:
    """As `load_steps`, one at a time: a long run has more steps than one wants in memory."""
    return _read_lines(run_dir / STEPS_FILE)


def load_evaluations(run_dir: Path) -> list[Row]:
    """One mapping per evaluation, each with its `step`; empty if there was none."""
    return list(_read_lines(run_dir / EVALUATIONS_FILE))


def find_evaluation(run_dir: Path, step: int) -> Row | None:
    """The evaluation of the weights of `step`, not the last one of the run; None if no complete line holds it."""
    rows = [row for row in load_evaluations(run_dir) if row["step"] == step]
    return next((row for row in rows if BEST_EPOCH not in row), None)


def metrics_of(row: Row) -> dict[str, float]:
    """The metrics in a line of `evaluations.jsonl`, as they were measured."""
    others = {"step", "epoch", "memory", EARLY_EPISODES, BEST_EPOCH}
    return {key: value for key, value in row.items() if key not in others}


def _read_lines(path: Path) -> Iterator[Row]:
    for row in read_rows(path):
        if math.isfinite(row.get("step", math.nan)):  # other lines were not written by a run
            yield row
