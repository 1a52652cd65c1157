"""What the health report reads from a run folder, and `health.json`.

A run may have been killed: the last line of a file may be cut off, `health.json` may be missing, out of date or of
another program. Its content is then computed again: the peaks come from the newest checkpoint, an explosion from
applying the stability rules to the stored steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, PositiveFloat, ValidationError

from fsdet.config import MODULES, TrainConfig
from fsdet.config.parsing import load_config
from fsdet.errors import CheckpointError, ConfigError
from fsdet.files import write_text_atomic
from fsdet.health.evidence import Check
from fsdet.health.stability import StabilityMonitor
from fsdet.report import Explosion
from fsdet.run_files import CONFIG_FILE, HEALTH_FILE, STEPS_FILE, Row, load_evaluations, load_steps


@dataclass(frozen=True)
class RunRecord:
    """The run as its folder records it."""

    config: TrainConfig
    steps: list[Row]
    evaluations: list[Row]
    peaks: dict[str, float]
    explosion: Explosion | None


class StoredHealth(BaseModel):
    """`health.json`: a report, and what only the running process knew."""

    checks: tuple[Check, ...]
    dead: tuple[str, ...]
    verdict: str
    steps: int
    explosion: Explosion | None
    peaks: dict[str, float]


class StoredReference(BaseModel):
    """What is read of a checkpoint's stability monitor."""

    reference: PositiveFloat | None = None
    """Healthy gradient norm of the earlier stage, if known."""


class StoredState(BaseModel):
    """What is read of a checkpoint."""

    gradient_peaks: dict[str, float] = {}
    stability: StoredReference = StoredReference()


def read_run(run_dir: Path) -> RunRecord:
    """Read a run folder, of a run that is finished, exploded, killed or still running.

    Raises:
        ConfigError: the folder is no run, a file cannot be opened, or the config cannot be used.
    """
    for name in (CONFIG_FILE, STEPS_FILE):
        if not (run_dir / name).is_file():
            raise ConfigError(
                f"{run_dir}: holds no {name}, so it is no run; name the checkpoint_dir of one"
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
    from fsdet.checkpoint import load_checkpoint

    for path in sorted(run_dir.glob("stage*_epoch*.pt"), key=_written, reverse=True):
        try:
            return StoredState.model_validate(load_checkpoint(path))
        except (CheckpointError, ValidationError):
            continue  # an older one is almost as good
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
        reference: healthy gradient norm of the earlier stage, if known.
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
    """Write `health.json`: the report, and what only the running process knew; atomic, without NaN."""
    content = {
        **report,
        "steps": steps,
        "explosion": None if explosion is None else asdict(explosion),
        "peaks": {name: x if math.isfinite(x) else str(x) for name, x in peaks.items()},
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text_atomic(run_dir / HEALTH_FILE, text + "\n")


def read_stored(run_dir: Path) -> StoredHealth | None:
    """The content of `health.json`; None if it is missing or of another program."""
    try:
        return StoredHealth.model_validate_json((run_dir / HEALTH_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
