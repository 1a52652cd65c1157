"""`python -m fsdet.export RUN_DIR OUT.pt`: the best weights of a run as a small file to start from.

RUN_DIR is the folder of a run, the name of a sweep (its best trial), or a checkpoint file.
Weights (their moving average, if there is one) are halved to float16, optimiser and classifiers of stage 1
are left out. `OUT.json` next to it holds the sha256, the seed, the steps and the metrics of these weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from fsdet.checkpoint.content import (
    SCORE_THRESHOLD,
    load_checkpoint,
    restore_detector,
    save_checkpoint,
    score_threshold_of,
    weights_of,
)
from fsdet.checkpoint.lookup import find_checkpoint
from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.config import TrainConfig
from fsdet.device import usable_device
from fsdet.errors import ConfigError
from fsdet.evaluation.metrics import evaluate_run
from fsdet.files import atomic_path


def export(run_dir: Path, out: Path) -> dict[str, Any]:
    """Write `out` and its `.json`, or neither after a failure; return the content of the latter.

    Args:
        run_dir: see `find_checkpoint`.
        out: of the small checkpoint.

    Raises:
        CheckpointError: there is no checkpoint that can be used.
        ConfigError: `out` cannot be written.
        DataError: the dataset that the weights are evaluated on cannot be used.
    """
    check_out(out)
    source = find_checkpoint(run_dir, "RUN_DIR")
    state = smaller(load_checkpoint(source, "RUN_DIR"))
    device = usable_device("auto")
    detector, config = restore_detector(state, source, device)
    facts = {
        "stage": config.stage,
        "seed": config.seed,
        "steps": state["step"],
        "torch": torch.__version__,
        "metrics": evaluate_run(detector, config, device, final=True, label="evaluating"),
    }
    return write_pair(out, state, config, facts)


def check_out(out: Path) -> None:
    """Refuse, before the evaluation, a file that cannot be written after it.

    Raises:
        ConfigError: with what to name instead.
    """
    if out.suffix != ".pt" or out.is_dir():
        raise ConfigError(f"OUT.pt: must be a file that ends in .pt, but got {out}; name another")
    if out.with_suffix(".json").is_dir():
        raise ConfigError(f"OUT.pt: {out.with_suffix('.json')} is a folder; name another file")
    existing = next(folder for folder in out.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"OUT.pt: {out} cannot be written; name a file in another folder")


def smaller(state: dict[str, Any]) -> dict[str, Any]:
    """What the next stage needs, with weights in float16 and without the run's own paths."""
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights_of(state).items()}
    threshold = score_threshold_of(state)
    return {
        "config": {**state["config"], "resume": None, "checkpoint_dir": "checkpoints"},
        **{key: state[key] for key in ("stage", "step", "trained_on")},
        "changed": state.get("changed", []),
        **({} if threshold is None else {SCORE_THRESHOLD: threshold}),
        "detector": halved,
        "criterion": {k: v for k, v in state["criterion"].items() if k.startswith("box_loss.")},
    }


def write_pair(
    out: Path, state: dict[str, Any], config: TrainConfig, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the checkpoint, and next to it `facts` with its sha256, which are returned.

    Both are complete before either has its name.

    Raises:
        ConfigError: they cannot be written.
    """
    content = {key: value for key, value in state.items() if key != "config"}
    try:
        with atomic_path(out) as weights, atomic_path(out.with_suffix(".json")) as notes:
            save_checkpoint(weights, content, config)
            facts = {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest(), **facts}
            notes.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"OUT.pt: {out} cannot be written ({error.strerror}); name a file in another folder"
        ) from None
    return facts


def main() -> int:
    """Command line; returns the exit code."""
    return run_command(run)


def run() -> int:
    """Export as the command line says, and print what was written."""
    parser = FlagParser("python -m fsdet.export", description=__doc__)
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    parser.add_argument("out", type=Path, metavar="OUT.pt")
    options = parser.parse_args()
    print(json.dumps(export(options.run_dir, options.out), indent=2))
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
