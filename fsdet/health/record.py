"""Reads the record of a run from its folder, and reads and writes `health.json`.

A run may have been killed: the last line of a file may be cut off, `health.json` may be missing, out of date or
written by another program. Its content is then computed again: the peaks come from the newest checkpoint, an explosion
from applying the stability rules to the stored steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveFloat, ValidationError

from fsdet.config import MODULES, TrainConfig
from fsdet.config.parsing import load_config
from fsdet.errors import CheckpointError, ConfigError
from fsdet.files import write_text_atomic
from fsdet.health.run_record import Check, RunRecord
from fsdet.health.stability import StabilityMonitor
from fsdet.reading import read_text
from fsdet.report import STEPS_FILE, Explosion
from fsdet.run_files import CONFIG_FILE, HEALTH_FILE, load_evaluations, load_steps


class StoredHealth(BaseModel):
    """`health.json`: a report, and what cannot be computed from the other files of a run."""

    checks: tuple[Check, ...]
    dead: tuple[str, ...]
    verdict: str
    steps: int
    explosion: Explosion | None
    peaks: dict[str, float]


class StoredReference(BaseModel):
    """The part of the stability monitor's state that is read from a checkpoint."""

    reference: PositiveFloat | None = None
    """Gradient norm of the run before its first update; None if it was not measured."""


class StoredState(BaseModel):
    """The part of a checkpoint that the health report reads."""

    gradient_peaks: dict[str, float] = {}
    stability: StoredReference = StoredReference()


def read_run(run_dir: Path) -> RunRecord:
    """Read a run folder, of a run that is finished, exploded, killed or still running.

    Raises:
        ConfigError: the folder is not a run folder, a file cannot be opened, or the config cannot be used.
    """
    for name in (CONFIG_FILE, STEPS_FILE):
        if not (run_dir / name).is_file():
            raise ConfigError(
                f"{run_dir}: holds no {name}, so it is not a run folder; name the checkpoint_dir of a run"
            )
    config, steps = load_config(run_dir / CONFIG_FILE), load_steps(run_dir)
    stored = read_stored(run_dir)
    if stored is not None and stored.steps == len(steps):
        peaks, explosion = stored.peaks, stored.explosion
    else:
        state = newest_state(run_dir)
        peaks, explosion = state.gradient_peaks, replay(config, steps, state.stability.reference)
    return RunRecord(config, steps, load_evaluations(run_dir), peaks, explosion)


def newest_state(run_dir: Path) -> StoredState:
    """The newest readable checkpoint of the run; empty if there is none."""
    from fsdet.checkpoint.content import read_checkpoint

    for path in sorted(run_dir.glob("stage*_epoch*.pt"), key=_written, reverse=True):
        try:
            return StoredState.model_validate(read_checkpoint(path))
        except (CheckpointError, ValidationError):
            continue  # try an older one
    return StoredState()


def _written(path: Path) -> float:
    """Time of the last change; 0 if the file is gone, since a running run deletes its old ones."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def replay(
    config: TrainConfig, steps: Sequence[Mapping[str, float]], reference: float | None
) -> Explosion | None:
    """The first explosion that the stability rules find in `steps`.

    Args:
        config: of the run.
        steps: as in `steps.jsonl`.
        reference: gradient norm of the run before its first update; None if it was not measured.
    """
    monitor = StabilityMonitor(config, MODULES, reference)
    for row in steps:
        loss, norm = row.get("train/loss/total", math.nan), row.get("grad/norm", math.nan)
        if config.mixed_precision == "fp16" and math.isfinite(loss) and not math.isfinite(norm):
            continue  # the scaler may have been backing off
        norms = {name: row.get(f"grad/norm/{name}", math.nan) for name in MODULES}
        positives = row.get("train/positives", math.nan)
        if found := monitor.update(int(row["step"]), loss, norm, norms, positives):
            return found
    return None


def save_health(
    run_dir: Path,
    report: Mapping[str, Any],
    steps: int,
    peaks: Mapping[str, float],
    explosion: Explosion | None,
) -> None:
    """Write `health.json` atomically: the report, and what cannot be computed from the other files; without NaN."""
    content = {
        **report,
        "steps": steps,
        "explosion": None if explosion is None else asdict(explosion),
        "peaks": {name: x if math.isfinite(x) else str(x) for name, x in peaks.items()},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(run_dir / HEALTH_FILE, text + "\n")


def read_stored(run_dir: Path) -> StoredHealth | None:
    """The content of `health.json`; None if it is missing or was written by another program."""
    try:
        return StoredHealth.model_validate_json(read_text(run_dir / HEALTH_FILE))
    except (ConfigError, ValidationError):
        return None
