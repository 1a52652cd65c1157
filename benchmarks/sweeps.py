"""What a sweep costs beyond its trials: `python benchmarks/sweeps.py PART …`.

- `orchestration`: driver CPU and wall time per trivial trial, ours with MLflow against raw Ray Tune and
  against Ray Tune with OptunaSearch and MLflowLoggerCallback; whether cost and memory stay flat;
- `saturation`: reports a second of one driver while many trials report all the time, ours against raw Ray Tune;
- `busy`: how much of the cores a real sweep uses.

The arms of a part are measured side by side in one run; `--help` of a part lists its options. What a search saves is
measured by `benchmarks/search_methods.py`.
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
    for sampler in options.samplers:
        sweep_orchestration.flat(options.long, 1, sampler)


def saturation(options: argparse.Namespace) -> None:
    from benchmarks import sweep_orchestration

    sweep_orchestration.saturate(options.at_once, options.reports)


def busy(options: argparse.Namespace) -> None:
    from benchmarks import sweep_busy

    sweep_busy.measure(options.file, options.overrides)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(required=True)
    part = parts.add_parser("orchestration")
    part.add_argument("--rounds", type=int, default=3)
    part.add_argument("--trials", type=int, default=40)
    part.add_argument("--reports", nargs="*", type=int, default=[1, 20])
    part.add_argument(
        "--long", type=int, default=2000, help="trials of the sweeps that must be flat"
    )
    part.add_argument("--samplers", nargs="*", default=["random", "tpe"], help="of these sweeps")
    part.set_defaults(call=orchestration)
    part = parts.add_parser("saturation")
    part.add_argument("--at-once", type=int, default=100)
    part.add_argument("--reports", type=int, default=20)
    part.set_defaults(call=saturation)
    part = parts.add_parser("busy")
    part.add_argument("--file", default=str(ROOT / "search_spaces" / "stage2_clip_dfl.yaml"))
    part.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    part.set_defaults(call=busy)
    options = parser.parse_args()
    options.call(options)


if __name__ == "__main__":
    main()
