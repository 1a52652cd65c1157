"""`python -m sweeps.run FILE`: check a sweep, run it, print what it found."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fsdet.errors import FsdetError
from sweeps.check import check_files, check_machine, check_spec, prepare_data, to_fill_in
from sweeps.errors import SweepError
from sweeps.machine import Machine, this_machine
from sweeps.space import describe
from sweeps.spec import SweepSpec
from sweeps.spec_file import load_spec

EXIT_NONE_COMPLETED, EXIT_MISTAKE, EXIT_INTERRUPTED = 1, 2, 130


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sweeps.run", description=__doc__)
    parser.add_argument(
        "file", help="the sweep's YAML; a bare name is looked for in search_spaces/ too"
    )
    parser.add_argument(
        "--check", action="store_true", help="print the sweep as understood, start nothing"
    )
    parser.add_argument("--name", help="name of this sweep; must be free")
    parser.add_argument("--trials", help="number of trials", metavar="N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file (sampler.seed=1) or a setting of the trainer (epochs=2)",
    )
    return parser.parse_args(arguments)


def load(options: argparse.Namespace) -> SweepSpec:
    """The sweep that the command line asks for, checked against the trainer.

    Raises:
        SweepError: see `load_spec` and `check_spec`.
    """
    overrides = list(options.overrides)
    overrides += [f"{k}={v}" for k in ("name", "trials") if (v := getattr(options, k)) is not None]
    spec, lines = load_spec(options.file, overrides)
    check_spec(spec, lines)
    return spec


def show(spec: SweepSpec, machine: Machine, console: Console) -> None:
    """Print the sweep as understood: space, baselines, resources."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for name in ("searched", "values", *spec.baselines):
        table.add_column(name)
    baselines = spec.baseline_parameters()
    for key, parameter in spec.space.items():
        table.add_row(key, describe(parameter), *(str(b[key]) for b in baselines.values()))
    console.print(f"sweep {spec.name} ({spec.source})", markup=False, highlight=False)
    console.print(table)
    for key, value in spec.settings.items():
        console.print(f"  {key}: {value}", markup=False, highlight=False, soft_wrap=True)
    used = spec.resources
    console.print(
        f"{spec.trials} trials ({len(spec.baselines)} baselines first), "
        f"sampler {spec.sampler.name} (seed {spec.sampler.seed}), scheduler {spec.scheduler.name}, "
        f"objective {spec.objective.metric} ({spec.objective.mode})\n"
        f"{used.cpus:g} CPUs and {used.gpus:g} GPUs a trial, {machine.capacity(used)} at once "
        f"on this machine ({machine.cpus} CPUs, {machine.gpus} GPUs)",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def check(spec: SweepSpec, console: Console) -> int:
    """Print what would be done, and what keeps it from being done here.

    Raises:
        SweepError: a file that is there cannot be used.
    """
    machine = this_machine(look_for_gpus=spec.resources.gpus > 0)
    show(spec, machine, console)
    missing = to_fill_in(spec)
    for key in missing:
        console.print(f"to fill in before a run: {key}", markup=False, highlight=False)
    if not missing:
        check_files(spec)
    try:
        check_machine(spec, machine)
    except SweepError as error:
        console.print(
            f"not on this machine: {error}", markup=False, highlight=False, soft_wrap=True
        )
    console.print("the check found no mistake; nothing was started")
    return 0


def run(spec: SweepSpec, name_asked_for: bool, console: Console) -> int:
    """Run the sweep and print what it found; returns the exit code.

    Raises:
        SweepError: something keeps it from starting; nothing was started.
    """
    missing = to_fill_in(spec)
    if missing:
        raise SweepError(
            f"{spec.source}: {', '.join(missing)}: to be filled in before a run; write the path "
            "there, or remove the line to do without"
        )
    machine = this_machine(look_for_gpus=spec.resources.gpus > 0)
    check_machine(spec, machine)
    check_files(spec)
    prepare_data(spec)

    # these load Ray, Optuna and MLflow, some seconds: only now that nothing can be refused any more
    from sweeps.display import build_display
    from sweeps.folder import new_folder
    from sweeps.orchestrator import longest_trial, run_sweep
    from sweeps.recorder import SWEEP_RUN
    from sweeps.study import best_of
    from sweeps.summary import print_summary, write_best
    from sweeps.tracking import Tracker, tracking_uri

    tracker = Tracker(tracking_uri(spec.tracking), spec.tracking.experiment)
    folder = new_folder(spec.name, name_asked_for)
    if folder.name != spec.name:
        console.print(
            f"a sweep {spec.name} exists already: this one is {folder.name}", highlight=False
        )
    objective = spec.objective
    display = build_display(
        spec.trials, longest_trial(spec), objective.metric, objective.mode, console
    )
    console.print(
        f"sweep {folder.name}: {spec.trials} trials, {machine.capacity(spec.resources)} at once; "
        f"files in {folder.path}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    try:
        result = run_sweep(spec, folder, machine, tracker, display)
    finally:
        tracker.close()
        folder.save_record({"uri": tracker.uri, "run_id": tracker.run_id(SWEEP_RUN)})
    write_best(spec, folder, result.trials)
    print_summary(console, spec, folder, result.trials)
    if result.interrupted:
        console.print("interrupted: the trials that had ended are kept, the others are not")
        return EXIT_INTERRUPTED
    return 0 if best_of(result.trials, objective.mode) else EXIT_NONE_COMPLETED


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    options = parse(sys.argv[1:] if arguments is None else arguments)
    console = Console(file=sys.stdout)  # this very stream: Ray's words are led elsewhere
    try:
        spec = load(options)
        if options.check:
            return check(spec, console)
        return run(spec, options.name is not None, console)
    except (SweepError, FsdetError) as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return EXIT_MISTAKE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
