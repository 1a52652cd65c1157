"""Runs of the real trainer: interrupting them, and comparing what they leave."""

import json
import re
from pathlib import Path

import torch

from fsdet.config import TrainConfig
from fsdet.report import Report, Result
from fsdet.train import train

STAGE_1 = Path(__file__).parents[2] / "fsdet" / "checkpoints" / "stage1_openmoji.pt"


class InterruptError(Exception):
    pass


def stop_after(epoch: int):
    def on_report(report: Report) -> None:
        if report.epoch == epoch:
            raise InterruptError

    return on_report


def tensors(content, prefix: str = "") -> dict[str, object]:
    """All leaves of nested dicts and lists by path."""
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, list | tuple):
        pairs = enumerate(content)
    else:
        return {prefix: content}
    return {k: v for key, part in pairs for k, v in tensors(part, f"{prefix}/{key}").items()}


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    return a == b or (a != a and b != b)


def steps(result: Result | TrainConfig) -> list[dict[str, object]]:
    folder = result.run_dir if isinstance(result, Result) else result.checkpoint_dir
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def state(path: Path) -> dict[str, object]:
    content = torch.load(path, weights_only=True)
    del content["config"]
    return tensors(content)


def differences(one: Path, other: Path) -> list[str]:
    """Names of what differs between two checkpoints, besides their configs."""
    a, b = state(one), state(other)
    return [key for key in {**a, **b} if key not in a or key not in b or not equal(a[key], b[key])]


def evaluations(run_dir: Path) -> list[dict[str, object]]:
    """The lines of `evaluations.jsonl` without the memory in use."""
    lines = (run_dir / "evaluations.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "memory"} for line in lines]


def evaluations_computed(run_dir: Path) -> int:
    """How many evaluations all processes of a run have computed, the last one included: each logs its metrics."""
    log = (run_dir / "training_debug.log").read_text()
    return len(re.findall(r"NOTE - (?:epoch|last evaluation).*: val/nAP50 ", log))


def kept_reports(config: TrainConfig, **arguments) -> tuple[list[Report], Result]:
    reports: list[Report] = []
    result = train(config, reports.append, **arguments)
    return reports, result


LEARNING = {
    "resume": STAGE_1, "support_size": 48, "image_size": 96, "n_way": 4, "n_query": 2,
    "eval_episodes": 4, "epochs": 3, "lr": 3e-3,
}  # fmt: skip
"""Settings with which AP50 rises from epoch to epoch."""
