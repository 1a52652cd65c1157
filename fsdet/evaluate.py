"""`python -m fsdet.evaluate …`: a full evaluation of a checkpoint, with the settings it was trained with."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from fsdet.command import ExitCode, read_flags, run_command
from fsdet.errors import ConfigError
from fsdet.files import write_text_atomic
from fsdet.report import NO_SWAP_CONTROL
from fsdet.tables import build_table, number_column, print_table

SIZES = ("small", "medium", "large")
"""Sizes of objects with an AP of their own; see `fsdet.evaluation.average_precision`."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Evaluate a checkpoint with the settings stored in it; flags replace settings."""

    checkpoint: Path
    """Of any stage: a file, the folder of a run, or the name of a sweep (its best trial)."""
    novel_split: Literal["val", "test"] | None = None
    """Novel classes to evaluate on: `val` selects, `test` reports."""
    eval_draws: int | None = None
    """Sets of `eval_episodes` episodes that are averaged over."""
    eval_episodes: int | None = None
    """Episodes of novel classes in a set; half as many of base classes."""
    data_root: Path | None = None
    """Folder of the dataset on this machine."""
    json: Path | None = None
    """File for all metrics."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:N`."""
    threads: int | None = None
    """CPU threads of torch."""


SETTINGS = ("eval_draws", "eval_episodes", "data_root", "threads")
"""Flags that replace the trainer's setting of the same name."""


def evaluate_checkpoint(config: EvaluateConfig) -> dict[str, float]:
    """All metrics of a final evaluation, by name.

    Raises:
        FsdetError: the checkpoint, its dataset or a setting cannot be used.
    """
    import torch

    from fsdet.checkpoint.content import load_detector
    from fsdet.checkpoint.lookup import find_checkpoint
    from fsdet.config.parsing import build_config
    from fsdet.device import usable_device
    from fsdet.evaluation.metrics import evaluate_run

    device = usable_device(config.device)
    detector, stored = load_detector(find_checkpoint(config.checkpoint), device)
    given = {name: getattr(config, name) for name in SETTINGS}
    changed = {name: value for name, value in given.items() if value is not None}
    split = config.novel_split or stored.reported_split
    changed |= {"novel_split": split, "final_split": None, "early_eval_epochs": ()}
    settings = build_config({**stored.model_dump(), **changed}, "the command line")
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    return evaluate_run(detector, settings, device, final=True, label="evaluating")


def show(console: Console, metrics: dict[str, float], checkpoint: Path) -> None:
    """Print the metrics: a table, a second one by the size of objects, and the other metrics."""
    split = next(iter(metrics)).partition("/")[0]
    values = {name.partition("/")[2]: value for name, value in metrics.items()}
    title = f"{checkpoint}: novel classes of split '{split}'"
    console.print(title, markup=False, highlight=False, soft_wrap=True)
    for table in (main_table(values), *size_table(values)):
        console.print()
        print_table(console, table)
    console.print()
    for line in remarks(values):
        console.print(line, markup=False, highlight=False)


def main_table(values: dict[str, float]) -> Table:
    """Novel and base classes as rows, with intervals and the swap control."""
    rows = {
        kind: [f"{ap}50", f"{ap}50_ci95", f"{ap}50_swapped", gap, ap, f"{ap}75"]
        for kind, ap, gap in (("novel", "nAP", "swap_gap"), ("base", "bAP", "base_swap_gap"))
    }
    return metrics_table(values, ("AP50", "± 95 %", "swapped", "gap", "AP", "AP75"), rows)


def size_table(values: dict[str, float]) -> list[Table]:
    """AP by the size of objects, for the sizes that occur; no table if there are none."""
    sizes = [size for size in SIZES if {f"nAP_{size}", f"bAP_{size}"} & values.keys()]
    rows = {
        kind: [f"{kind[0]}AP_{size}" for size in sizes]  # n or b
        for kind in ("novel", "base")
    }
    return [metrics_table(values, [f"AP {size}" for size in sizes], rows)] if sizes else []


def metrics_table(
    values: dict[str, float], headings: Sequence[str], rows: Mapping[str, Sequence[str]]
) -> Table:
    """A table of metrics.

    Args:
        values: metrics by name.
        headings: of the columns.
        rows: kind of classes -> name of the metric in each column.
    """
    table = build_table("classes", *map(number_column, headings))
    for kind, names in rows.items():
        table.add_row(kind, *(number(values, name) for name in names))
    return table


def remarks(values: dict[str, float]) -> list[str]:
    """Metrics that are not in the tables, one per line."""
    lines = [
        "± over episodes of these classes; swapped: every class searched with another class's supports"
    ]
    if "nAP50_swapped" not in values:
        lines = ["± over episodes of these classes", f"swap control {NO_SWAP_CONTROL}"]
    if "nAP50_se_classes" in values:
        error = number(values, "nAP50_se_classes")
        lines.append(f"standard error of novel AP50 over classes: {error}")
    if "ST_IoU" in values:
        lines.append(f"ST-IoU over videos: {number(values, 'ST_IoU')}")
    lines.append(f"class-agnostic AP50 of objects: {number(values, 'object_AP50')}")
    return lines


def number(values: dict[str, float], name: str) -> str:
    """Three digits, or a dash if it was not measured."""
    return f"{values[name]:.3f}" if name in values else "–"


def write_json(metrics: dict[str, float], path: Path) -> None:
    """Write all metrics that have a value; an interval over one episode has none.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        write_text_atomic(path, json.dumps(metrics, indent=2) + "\n")
    except OSError as error:
        raise ConfigError(
            f"json: {path} cannot be written ({error.strerror}); name another file"
        ) from None


def parse(arguments: Sequence[str]) -> EvaluateConfig:
    """The command line's options.

    Raises:
        ConfigError: see `read_flags`.
        SystemExit: with code 0, after `--help`.
    """
    return read_flags(EvaluateConfig, arguments, "python -m fsdet.evaluate")


def run() -> int:
    """Evaluate as the command line says, write and show the metrics."""
    config = parse(sys.argv[1:])
    metrics = evaluate_checkpoint(config)
    if config.json is not None:
        write_json(metrics, config.json)
    show(Console(), metrics, config.checkpoint)
    return ExitCode.OK


def main() -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
