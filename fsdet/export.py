"""`python -m fsdet.export RUN_DIR OUT.pt`: the newest checkpoint of a run as a small file to start from.

Weights (their moving average, where there is one) are halved to float16, optimiser and classifiers of stage 1
are left out. `OUT.json` beside it holds the sha256, the seed, the steps and the metrics of exactly these weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch

from fsdet.config import TrainConfig
from fsdet.config_file import build_config
from fsdet.engine.checkpoint import load_checkpoint, save_checkpoint
from fsdet.engine.evaluation import evaluate_run
from fsdet.engine.run import as_float, pick_device, weights_of
from fsdet.errors import CheckpointError, FsdetError
from fsdet.files import write_text_atomic
from fsdet.models.detector import build_detector


def export(run_dir: Path, out: Path) -> dict[str, object]:
    """Write `out` and its `.json`; return what the latter holds.

    Raises:
        CheckpointError: `run_dir` holds no checkpoint.
    """
    newest = max(run_dir.glob("stage*_epoch*.pt"), key=lambda p: p.stat().st_mtime, default=None)
    if newest is None:
        raise CheckpointError(f"{run_dir}: holds no checkpoint; name the checkpoint_dir of a run")
    state = load_checkpoint(newest, "RUN_DIR")
    config = build_config({**state.pop("config"), "resume": None, "checkpoint_dir": "checkpoints"})
    weights = weights_of(state)
    halved = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    small = {key: state[key] for key in ("stage", "step", "reference_norm")}
    shared = {k: v for k, v in state["criterion"].items() if k.startswith("box_loss.")}
    save_checkpoint(out, {**small, "detector": halved, "criterion": shared}, config)
    facts = {
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "stage": config.stage,
        "seed": config.seed,
        "steps": state["step"],
        "reference_norm": state["reference_norm"],
        "torch": torch.__version__,
        "metrics": metrics_of(halved, config),
    }
    write_text_atomic(out.with_suffix(".json"), json.dumps(facts, indent=2) + "\n")
    return facts


def metrics_of(weights: dict[str, torch.Tensor], config: TrainConfig) -> dict[str, float]:
    """A full evaluation of `weights`."""
    device = pick_device(config.device)
    detector = build_detector(config, config, config.seed).to(device)
    detector.load_state_dict(as_float(weights))
    return evaluate_run(detector, config, device, final=True)


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fsdet.export", description=__doc__)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    try:
        facts = export(options.run_dir, options.out)
    except FsdetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(facts, indent=2))
    print(f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
