"""`python -m sweeps.run FILE`: check a sweep, run it, print what it found.

Exit codes: 0 done, or a budget is spent or the target reached; 1 no trial completed, no configuration was
feasible in the confirmation, or --check found that the sweep cannot run here; 2 a mistake in the input; 4 too many
trials failed; 5 the study cannot be written; 6 a trial did not train with the settings suggested for it; 130 Ctrl-C;
143 SIGTERM.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.json_output import add_json_flag, print_json
from sweeps.config import SweepSpec
from sweeps.config.check import check_files, check_spec, missing_paths, prepare_data
from sweeps.config.file import load_spec
from sweeps.config.sections import AUTO
from sweeps.confirmation.results import CONFIRM_FILE, load_findings
from sweeps.errors import SweepError
from sweeps.plan import check_plan
from sweeps.resources.machine import Machine, check_machine, this_machine
from sweeps.resources.probe import find_gpus, with_gpus, with_measured_gpus
from sweeps.secrets import holds_secret, without_password
from sweeps.session.display import print_line
from sweeps.session.live_display import build_display
from sweeps.session.plain_data import sweep_data
from sweeps.session.summary import conclude, this_python
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import find_folder, latest_folder, new_folder
from sweeps.study.location import check_separate_databases, store_of
from sweeps.study.study import read_trials
from sweeps.trial.trial import Train

if TYPE_CHECKING:
    from sweeps.session.session import Session  # loads Ray and MLflow

NUMBERED = "auto"
"""Value of --name that adds the next free number to the name in the YAML."""
FLUSH_SECONDS, FLUSH_SECONDS_STOPPED = 60, 4
"""Time to flush the tracking store at the end of a sweep, and after an early stop."""
NO_REPORT = (ExitCode.INTERRUPTED, ExitCode.TERMINATED, ExitCode.STUDY_LOST)
"""How a sweep ends without a report: someone waits for the prompt, or there is nothing to read."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = FlagParser("python -m sweeps.run", description=__doc__)
    parser.add_argument(
        "file", help="the sweep's YAML; a bare name is searched for in search_spaces/ too"
    )
    parser.add_argument(
        "--check", action="store_true", help="print the sweep as understood, start nothing"
    )
    parser.add_argument(
        "--probe",
        action="store_true",
        help="with --check: train a few steps to estimate what the sweep costs",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="resume the latest sweep of this name: ended trials stay, running ones continue",
    )
    parser.add_argument(
        "--name",
        help="name of this sweep; must be free unless it is to be resumed; "
        "'auto' adds the next free number to the name in the file",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="run the trials on this Ray cluster, by default that of RAY_ADDRESS; 'auto' finds the one "
        "that this machine is a node of, 'local' is this machine alone",
    )
    parser.add_argument("--trials", help="number of trials", metavar="N")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        dest="overrides",
        help="override a key of the file (sampler.seed=1) or a setting of the trainer (epochs=2)",
    )
    add_json_flag(parser)
    return parser.parse_args(arguments)


def load(options: argparse.Namespace) -> SweepSpec:
    """The sweep that the command line asks for, checked against the trainer.

    Raises:
        SweepError: see `load_spec` and `check_spec`.
    """
    overrides = list(options.overrides)
    for override in filter(holds_secret, overrides):
        raise SweepError(
            f"--set {override}: every user of this machine can read a password there; give it by "
            "OPTUNA_STORAGE or MLFLOW_TRACKING_URI"
        )
    named = options.name is not None and options.name != NUMBERED
    overrides += [f"name={options.name}"] if named else []
    overrides += [f"trials={options.trials}"] if options.trials is not None else []
    spec, lines = load_spec(options.file, overrides)
    check_spec(spec, lines)
    return spec


def check(spec: SweepSpec, options: argparse.Namespace, console: Console) -> int:
    """Print the sweep as understood, and what prevents it from running here; returns the exit code.

    Raises:
        SweepError: see `check_plan`.
    """
    machine = machine_of(spec, options, console)
    if spec.resources.gpus == AUTO and not machine.gpus:
        spec = with_gpus(spec, 0)
    return check_plan(spec, machine, options.probe, options.json, console)


def machine_of(spec: SweepSpec, options: argparse.Namespace, console: Console) -> Machine:
    """The cluster of --address or RAY_ADDRESS, or this machine alone.

    Raises:
        SweepError: there is no such cluster, or a requirement of a trial is missing on one of its nodes.
    """
    address = options.address or os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return this_machine(look_for_gpus=spec.resources.gpus != 0)
    from sweeps.resources.nodes import check_cluster

    print_line(console, f"cluster {address}: checking its nodes")
    return check_cluster(address, spec)


def run(
    spec: SweepSpec, options: argparse.Namespace, console: Console, train: Train | None = None
) -> int:
    """Run the sweep and print what it found; returns the exit code.

    Args:
        spec: checked.
        options: of the command line.
        console: for all that is printed.
        train: replaces the trainer; files and data are then not checked.

    Raises:
        SweepError: it cannot start; nothing was started.
    """
    missing = missing_paths(spec)
    if missing:
        raise SweepError(
            f"{spec.source}: {', '.join(missing)}: to be filled in before a run; write the path "
            "there, or remove the line to do without"
        )
    folder = folder_to_resume(spec, options.name) if options.resume else None
    if folder is not None:
        spec = with_measured_gpus(spec, folder)
    machine = machine_of(spec, options, console)
    check_machine(spec, machine)
    if train is None:
        check_inputs(spec)
    spec = find_gpus(spec, machine, lambda text: print_line(console, text))
    return start(spec, folder, machine, options, console, train)


def check_inputs(spec: SweepSpec) -> None:
    """Check the files of the sweep and of its confirmation, and build the caches of their images.

    Raises:
        SweepError: a file or the dataset cannot be used.
    """
    for part in [spec] if spec.confirm is None else [spec, spec.for_confirmation]:
        check_files(part)
        prepare_data(part)


def start(
    spec: SweepSpec,
    folder: SweepFolder | None,
    machine: Machine,
    options: argparse.Namespace,
    console: Console,
    train: Train | None,
) -> int:
    """Open the tracker and the folder, and run the sweep; see `run`. `folder`: None for a new one."""
    # these load Ray and MLflow, some seconds: only after all checks
    from sweeps.session.session import Session
    from sweeps.tracking import Tracker, tracking_uri

    check_separate_databases(spec, tracking_uri(spec.tracking))
    tracker = Tracker(tracking_uri(spec.tracking), spec.tracking.experiment)
    folder = folder or new_folder(spec.name, options.name == NUMBERED, spec.storage.path)
    session = Session(folder, machine, tracker, train)
    trials = "resuming" if options.resume else f"{spec.trials} trials"
    print_line(
        console,
        f"sweep {folder.name}: {trials}, {machine.capacity(spec.resources)} at once; "
        f"files in {folder.url or folder.path}",
    )
    seconds = FLUSH_SECONDS_STOPPED
    try:
        code = search_and_confirm(spec, session, console)
        if code in (ExitCode.OK, ExitCode.NOTHING_FOUND):
            seconds = FLUSH_SECONDS
        if code not in NO_REPORT:
            from sweeps.report.write import report_at_end
            from sweeps.session.callbacks import SWEEP_RUN

            tracker.add_files(SWEEP_RUN, [folder.best_file, folder.trials_file])
            report_at_end(session.folder, tracker, console)
    finally:
        missing = tracker.close(seconds)
        if missing:
            print_line(
                console,
                f"{tracker.public_uri}: {missing} writes are missing there; when it answers again: "
                f"{this_python()} -m sweeps.sync {folder.name}",
            )
    if options.json:
        data = sweep_data(spec, folder, read_trials(store_of(folder)))
        findings = load_findings(folder.path / CONFIRM_FILE)
        print_json({**data, "confirmation": findings, "exit_code": int(code)})
    return code


def search_and_confirm(spec: SweepSpec, session: Session, console: Console) -> ExitCode:
    """Run the trials, then the confirmation if one is asked for; returns the exit code."""
    from sweeps.confirmation.confirm import confirm_best
    from sweeps.session.sweep import run_sweep

    result = run_sweep(spec, session, build_display(spec, console))
    code = conclude(spec, session.folder, result.trials, result.stop, console)
    if code is ExitCode.OK and spec.confirm is not None:
        code = confirm_best(spec, session, result.trials, console)
    return code


def folder_to_resume(spec: SweepSpec, name: str | None) -> SweepFolder:
    """The folder of the sweep to resume.

    Raises:
        SweepError: no such sweep, one with another configuration, or one that another process runs.
    """
    from sweeps.session.resume import check_same  # loads Ray and MLflow

    named = name is not None and name != NUMBERED
    find = find_folder if named else latest_folder
    folder = find(spec.name, spec.storage.path)
    check_same(with_measured_gpus(spec, folder), folder)
    with folder.locked():
        return folder


def main(arguments: Sequence[str] | None = None, train: Train | None = None) -> int:
    """Command line; returns the exit code. `train` replaces the trainer."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")

    def body() -> int:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        # the stream itself: Ray's output is redirected later; FORCE_COLOR does not make a pipe a terminal
        stream = sys.stderr if options.json else sys.stdout
        console = Console(file=stream, force_interactive=None if stream.isatty() else False)
        if options.probe and not options.check:
            raise SweepError(
                "--probe: estimates what a sweep would cost, with --check only; add --check"
            )
        spec = load(options)
        if options.check:
            return check(spec, options, console)
        print_line(console, f"{spec.source}: {spec.trials} trials; checking its files")
        return run(spec, options, console, train)

    return run_command(body, mistakes=(SweepError,), redact=without_password)


if __name__ == "__main__":
    sys.exit(main())
