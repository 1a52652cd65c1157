"""A sweep whose trials note where they run, with whose code, and which files they see."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import drill_sweep
from ray import cloudpickle

from fsdet.config import TrainConfig
from fsdet.report import Report, Result
from sweeps.run import main

cloudpickle.register_pickle_by_value(drill_sweep)  # no node can import it

MEETING = Path(os.environ["MEETING"])
"""Folder that every node sees; no trial goes on before one has come to it from each of both nodes."""


def noting(
    config: TrainConfig,
    on_report: Callable[[Report], None] | None = None,
    resume: Path | None = None,
    until: int | None = None,
) -> Result:
    """The trainer of the drills, with notes in its log."""
    import ray

    import sweeps

    seen = {
        "node": ray.util.get_node_ip_address(),
        "code": sweeps.__file__,
        "weights": None if config.yolo_weights is None else config.yolo_weights.read_text(),
        "checkpoint": config.resume is not None and config.resume.is_file(),
        "folder": str(config.checkpoint_dir),
    }
    MEETING.mkdir(exist_ok=True)
    (MEETING / str(seen["node"])).touch()
    while len(list(MEETING.iterdir())) < 2:
        time.sleep(0.1)
    config.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    (config.checkpoint_dir / "config.yaml").write_text("lr: 1\n")
    (config.checkpoint_dir / "training_debug.log").write_text(json.dumps(seen))
    return drill_sweep.train(config, on_report, resume, until)


if __name__ == "__main__":
    sys.exit(main(train=noting))
