"""What a sweep costs beyond its trials, and what it saves: `python benchmarks/sweeps.py PART …`.

- `orchestration`: driver CPU and wall time per trivial trial, ours with MLflow against raw Ray Tune and
  against Ray Tune with OptunaSearch and MLflowLoggerCallback; whether cost and memory stay flat;
- `busy`: how much of the cores a real sweep uses;
- `compute`: steps to the same confirmed AP as random search and as Ray's own OptunaSearch with ASHA.

The arms of a part are measured side by side in one run; `--help` of a part lists its options. `compute` takes
hours; it resumes where it was interrupted, and `--report` shows the results so far.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

if __name__ == "sweeps":
    # the other scripts of this folder find this file first and want the package of its name
    spec = importlib.util.spec_from_file_location("sweeps", ROOT / "sweeps" / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["sweeps"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["sweeps"])
elif __name__ == "__main__":
    sys.path[0] = str(ROOT)


def orchestration(options: argparse.Namespace) -> None:
    from benchmarks import sweep_orchestration

    for reports in options.reports:
        sweep_orchestration.compare(options.rounds, options.trials, reports)
    for sampler in ("random", "tpe"):
        sweep_orchestration.flat(options.long, 1, sampler)


def busy(options: argparse.Namespace) -> None:
    from benchmarks import sweep_busy

    sweep_busy.measure(options.file, options.overrides)


def compute(options: argparse.Namespace) -> None:
    from benchmarks import sweep_compute

    options.folder.mkdir(parents=True, exist_ok=True)
    file = options.folder.resolve() / "compute.jsonl"
    if not options.report:
        sweep_compute.run(file, options.arms, options.seeds)
    sweep_compute.report(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("orchestration")
    part.add_argument("--rounds", type=int, default=3)
    part.add_argument("--trials", type=int, default=40)
    part.add_argument("--reports", nargs="+", type=int, default=[1, 20])
    part.add_argument(
        "--long", type=int, default=2000, help="trials of the sweeps that must be flat"
    )
    part.set_defaults(call=orchestration)
    part = parts.add_parser("busy")
    part.add_argument("--file", default=str(ROOT / "search_spaces" / "stage2_clip_dfl.yaml"))
    part.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    part.set_defaults(call=busy)
    part = parts.add_parser("compute")
    part.add_argument("--folder", type=Path, default=Path("mlruns/benchmarks"))
    part.add_argument("--arms", nargs="+", default=["ours", "random", "ray"])
    part.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4, 5])
    part.add_argument("--report", action="store_true", help="only report what there is")
    part.set_defaults(call=compute)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
