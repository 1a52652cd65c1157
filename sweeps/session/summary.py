"""The plan and the results of a sweep: printed, written to `best.yaml`, and as an exit code."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from shlex import quote
from typing import Any

import yaml
from rich.console import Console

from fsdet.command import ExitCode
from fsdet.files import write_text_atomic
from fsdet.report import BEST_FILE
from fsdet.tables import build_table, print_table
from sweeps.config import SweepSpec
from sweeps.config.distribution import describe
from sweeps.config.file import load_spec
from sweeps.config.sections import AUTO
from sweeps.errors import SweepError
from sweeps.resources.machine import Machine
from sweeps.search.stopping import StopReason
from sweeps.session.best_trial import best_weights, record_best_trial
from sweeps.session.certainty import verdicts
from sweeps.session.display import format_settings, print_line
from sweeps.session.plain_data import write_trials
from sweeps.session.result_table import explosion_lines, format_value, print_results
from sweeps.states import State
from sweeps.storage.folder import ADDRESS, SweepFolder
from sweeps.storage.remote import StorageError
from sweeps.study.records import TrialRecord, best_of

LOCAL_UI = "http://127.0.0.1:5000"
"""Address of `sweeps.ui`."""


def conclude(
    spec: SweepSpec,
    folder: SweepFolder,
    trials: list[TrialRecord],
    stop: StopReason | None,
    console: Console,
) -> ExitCode:
    """Write and print the results of a sweep.

    Args:
        spec: of the sweep.
        folder: of the sweep.
        trials: of all sessions.
        stop: why it ended early; None if all trials are done.
        console: for all that is printed.

    Returns:
        the exit code.
    """
    written = True
    try:
        write_trials(spec, folder, trials)
        write_best(spec, folder, trials)
    except OSError as error:
        print_line(console, f"{error.filename}: cannot be written ({error.strerror})")
        written = False
    except StorageError as error:
        print_line(console, str(error))
        written = False
    print_summary(console, spec, folder, trials)
    if stop is not None:
        print_line(
            console, f"\nthe sweep ended before all of its {spec.trials} trials: {stop.text}"
        )
        print_line(console, f"to resume it: {resume_command(spec, folder)}")
        if stop.exit_code:
            return stop.exit_code
    if best_of(trials, spec.objective) is None or not written:
        return ExitCode.NOTHING_FOUND
    if spec.confirm is None:
        print_next_commands(console, spec, folder)
    return ExitCode.OK


def counts(trials: list[TrialRecord]) -> str:
    """Number of trials in each state."""
    found = Counter(t.state for t in trials)
    shown_always = (State.COMPLETED, State.PRUNED, State.INFEASIBLE, State.FAILED)
    states = [s for s in State if s in shown_always or found[s]]
    return f"{len(trials)} trials: " + ", ".join(f"{found[s]} {_word(s)}" for s in states)


def _word(state: State) -> str:
    return "infeasible (exploded)" if state is State.INFEASIBLE else str(state)


def advice(spec: SweepSpec, trials: list[TrialRecord]) -> str:
    """What to change when no trial completed."""
    exploded = [t for t in trials if t.state is State.INFEASIBLE]
    failed = [t for t in trials if t.state is State.FAILED]
    if exploded and len(exploded) == len(trials):
        lowest = [key for key in spec.space if key.endswith("_lr_mult") or key == "lr"]
        what = f"lower the upper ends of {', '.join(lowest)}" if lowest else "lower fixed.lr"
        return (
            f"every trial exploded, the first one with: {exploded[0].reason}. "
            f"In {spec.source}: {what}, or set a small gradient_clip_norm; if trials explode within the "
            "first steps, check the checkpoint in fixed.resume"
        )
    paused = sum(t.state is State.PAUSED for t in trials)
    if paused:
        return f"no trial completed, but {paused} are paused; resume the sweep, if need be with a larger budget"
    if failed:
        return f"no trial completed; trial {failed[0].number} failed: {failed[0].reason}"
    return "no trial completed"


def commands(spec: SweepSpec, folder: SweepFolder) -> list[tuple[str, str]]:
    """The next commands: (command, purpose)."""
    best = Path(os.path.relpath(folder.best_file))
    where = spec.storage.path
    name = folder.name if where is None else f"{folder.name} --storage {where}"
    python = this_python()
    confirm = f"{resume_command(spec, folder)} --set confirm.seeds=5"
    purpose = "run the 3 best and the baselines over fresh seeds on the test split"
    return [
        *([(confirm, purpose)] if spec.confirm is None else []),
        *predict_command(folder),
        ("make ui", f"browse every trial in MLflow ({python} -m sweeps.ui)"),
        (f"{python} -m sweeps.best {name}", "show this again, write best.yaml again"),
        (f"{python} -m sweeps.rerun {name}", "run the best as one job, logged to MLflow"),
        (f"{python} -m fsdet.train --config {best}", "the same without MLflow"),
    ]


def predict_command(folder: SweepFolder) -> list[tuple[str, str]]:
    """The command that shows what the best trial finds; none if its weights are not on this machine."""
    weights = best_weights(folder)
    if weights is None:
        return []
    command = f"{this_python()} -m fsdet.predict --checkpoint {os.path.relpath(weights)} --example"
    return [(command, "let the best search an example; --supports and --images: your own")]


def resume_command(spec: SweepSpec, folder: SweepFolder) -> str:
    """The command that resumes the sweep, on the cluster that it ran on."""
    path = file_of(spec, folder)
    near = os.path.relpath(path)
    file = quote(str(path) if near.startswith("..") else near)
    address = folder.load_record().get(ADDRESS)
    where = f" --address {quote(address)}" if isinstance(address, str) else ""
    return f"{this_python()} -m sweeps.run {file} --resume --name {folder.name}{where}"


def file_of(spec: SweepSpec, folder: SweepFolder) -> Path:
    """A YAML with all of `spec`: the user's own, or the stored one if the command line changed something."""
    try:
        asked, _ = load_spec(spec.source)
    except SweepError:
        return folder.spec_file
    unchanged = asked.model_dump(exclude={"name"}) == spec.model_dump(exclude={"name"})
    return Path(spec.source) if unchanged else folder.spec_file


def this_python() -> str:
    """The interpreter as the user must type it, whether a venv is active or not."""
    if shutil.which("python") == sys.executable:
        return "python"
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near


def print_summary(
    console: Console,
    spec: SweepSpec,
    folder: SweepFolder,
    trials: list[TrialRecord],
    everything: bool = False,
) -> None:
    """Print the states of all trials, failures, the table of results, explosions, the comparison with baselines.

    Args:
        console: to print to.
        spec: of the sweep.
        folder: of the sweep.
        trials: of all sessions.
        everything: whether the table has all trials, not only the best and the baselines.
    """

    def files_of(trial: TrialRecord) -> str:
        place = folder.url_of("trials") or os.path.relpath(folder.trials_dir)
        return f"{place}/{trial.folder}"

    print_line(console, f"\nsweep {folder.name}: {counts(trials)}")
    for trial in trials:
        if trial.state is State.FAILED:
            files = files_of(trial)
            print_line(console, f"  trial {trial.label} failed: {trial.reason} (files in {files})")
        elif trial.retried:
            print_line(console, f"  trial {trial.label} was retried alone: {trial.retried}")
    best = best_of(trials, spec.objective)
    if best is not None or everything:
        print_results(console, spec, trials, everything)
    for text in explosion_lines(trials):
        print_line(console, f"  {text}")
    if best is None:
        print_line(console, f"error: {advice(spec, trials)}")
        return
    for text in verdicts(spec, trials):
        print_line(console, f"  {text}")
    print_line(console, f"  weights of the best epoch: {files_of(best)}/{BEST_FILE}")


def print_next_commands(console: Console, spec: SweepSpec, folder: SweepFolder) -> None:
    """Print the next commands with their purpose."""
    console.print("\nnext:")
    for command, purpose in commands(spec, folder):
        print_line(console, f"  {command:<58} # {purpose}")
    link = ranked_link(folder)
    if link is not None:
        print_line(console, f"its trials, ranked: {link}")


def ranked_link(folder: SweepFolder) -> str | None:
    """The address of the trials in the MLflow UI; None if the store never answered. Of files, that of `make ui`."""
    record = folder.load_record()
    uri, view = record.get("uri", ""), record.get("view")
    return None if view is None else f"{uri if uri.startswith('http') else LOCAL_UI}{view}"


def write_best(spec: SweepSpec, folder: SweepFolder, trials: list[TrialRecord]) -> Path | None:
    """Write the best configuration to `best.yaml`; None if no trial completed."""
    best = best_of(trials, spec.objective)
    if best is None:
        return None
    found = f"trial {best.number}, {spec.objective.metric} {format_value(best)} at epoch {best.best_epoch}"
    path = write_configuration(
        spec, folder, best.parameters, [f"Best of sweep {folder.name}: {found}"]
    )
    record_best_trial(folder, best.folder)
    return path


def write_configuration(
    spec: SweepSpec, folder: SweepFolder, parameters: dict[str, Any], findings: list[str]
) -> Path:
    """Write `best.yaml`: the findings as comments, then all settings except `checkpoint_dir`."""
    values: dict[str, Any] = spec.config(parameters).model_dump(mode="json")
    del values["checkpoint_dir"]
    lines = [
        *findings,
        f"Searched: {format_settings(parameters)}",
        f"Command: python -m fsdet.train --config {os.path.relpath(folder.best_file)}",
    ]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text_atomic(folder.best_file, "".join(f"# {line}\n" for line in lines) + text)
    folder.upload(folder.best_file)
    return folder.best_file


def print_plan(spec: SweepSpec, machine: Machine, console: Console) -> None:
    """Print the sweep as understood: space, baselines, resources."""
    table = build_table("searched", "values", *spec.baselines)
    baselines = spec.baseline_parameters()
    for key, parameter in spec.space.items():
        table.add_row(key, describe(parameter), *(str(b.get(key, "-")) for b in baselines.values()))
    print_line(console, f"sweep {spec.name} ({spec.source})")
    print_table(console, table)
    for key, value in spec.settings.items():
        print_line(console, f"  {key}: {value}")
    used = spec.resources
    auto = used.gpus == AUTO
    gpus, bound = (AUTO, "at most ") if auto else (f"{used.gpu_share:g}", "")
    print_line(
        console,
        f"{spec.trials} trials ({len(spec.baselines)} baselines first), "
        f"sampler {spec.sampler.name} (seed {spec.sampler.seed}), scheduler {spec.scheduler.name}, "
        f"objective {spec.objective.metric} ({spec.objective.mode})\n"
        f"{used.cpus:g} CPUs and {gpus} GPUs a trial, {bound}{machine.capacity(used)} at once "
        f"({machine.description}: {machine.cpus} CPUs, {machine.gpus} GPUs)",
    )
