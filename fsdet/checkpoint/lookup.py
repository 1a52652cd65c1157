"""Finds the checkpoint that a user names: by its file, by the folder of its run, or by the name of a sweep.

A sweep stands for its best trial. Only its files are read: `best.json` in the folder of a sweep names the folder of
that trial, whose `best.pt` holds the weights of its best epoch.
"""

from __future__ import annotations

from pathlib import Path

from fsdet.errors import CheckpointError, nearest, shown
from fsdet.files import stays_below
from fsdet.reading import read_json
from fsdet.report import BEST_FILE, BEST_TRIAL_FILE, SWEEPS_DIR

SWEEP_FILE = "sweep.yaml"
"""File in the folder of every sweep."""


def find_checkpoint(named: Path, setting: str = "checkpoint") -> Path:
    """The checkpoint file that `named` stands for.

    Args:
        named: a checkpoint, the folder of a run, or the name or folder of a sweep.
        setting: or argument that gives it, for the message.

    Raises:
        CheckpointError: there is none.
    """
    if named.is_file():
        return named
    return best_weights(find_run(named, setting))


def find_run(named: Path, setting: str = "checkpoint") -> Path:
    """The folder of the run that `named` stands for; see `find_checkpoint`.

    Raises:
        CheckpointError: there is no such file, folder or sweep, or the sweep has no best trial.
    """
    if named.is_file():
        return named.parent
    sweep = SWEEPS_DIR / named
    if named.is_dir():
        return _best_run(named, setting) if _is_sweep(named) else named
    if _is_sweep(sweep):
        return _best_run(sweep, setting)
    known = [path.parent.name for path in SWEEPS_DIR.glob(f"*/{SWEEP_FILE}")]
    cure = nearest(str(named), known) or (
        f"; name a .pt file, the folder of a run, or a sweep in {SWEEPS_DIR}"
    )
    raise CheckpointError(f"{named}: {setting}: no such checkpoint, run or sweep{cure}")


def best_weights(run_dir: Path) -> Path:
    """The weights of a run's best epoch; the newest checkpoint of a run without any evaluation.

    Raises:
        CheckpointError: the folder holds neither.
    """
    best = run_dir / BEST_FILE
    if best.is_file():
        return best
    files = [path for path in run_dir.glob("stage*_epoch*.pt") if path.is_file()]
    if not files:
        raise CheckpointError(f"{run_dir}: holds no checkpoint; name the checkpoint_dir of a run")
    return max(files, key=lambda path: path.stat().st_mtime)


def _is_sweep(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (BEST_TRIAL_FILE, SWEEP_FILE))


def _best_run(sweep: Path, setting: str) -> Path:
    """The folder of a sweep's best trial."""
    try:
        found = read_json(sweep / BEST_TRIAL_FILE, CheckpointError)["run_dir"]
    except (CheckpointError, KeyError, TypeError):
        raise CheckpointError(
            f"{sweep}: {setting}: {BEST_TRIAL_FILE} of this sweep names no best trial; "
            f"`python -m sweeps.best {sweep.name}` writes it when a trial has completed"
        ) from None
    if not isinstance(found, str) or not stays_below(found):
        raise CheckpointError(
            f"{sweep}: {setting}: {BEST_TRIAL_FILE} names {shown(found)}, which is no folder of this sweep; "
            f"`python -m sweeps.best {sweep.name}` writes it again"
        )
    return sweep / found
