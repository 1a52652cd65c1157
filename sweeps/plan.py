"""What `--check` prints: the sweep as understood, and what prevents it from running here."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console

from fsdet.command import ExitCode
from fsdet.json_output import print_json
from sweeps.config import SweepSpec
from sweeps.config.check import check_files, missing_paths
from sweeps.config.distribution import describe
from sweeps.confirmation.report import plan_of_confirmation
from sweeps.confirmation.resolution import resolution_lines
from sweeps.errors import SweepError
from sweeps.resources.cost import TrialCost
from sweeps.resources.cost_report import print_cost
from sweeps.resources.machine import Machine, check_machine
from sweeps.session.display import print_line
from sweeps.session.summary import print_plan


@dataclass(frozen=True)
class Plan:
    """A sweep as understood."""

    name: str
    file: str
    trials: int
    at_once: int
    """Trials that run side by side."""
    objective: str
    space: dict[str, str]
    """Searched setting -> its values in words."""
    baselines: dict[str, dict[str, object]]
    settings: dict[str, object]
    """All others that the file gives."""
    to_fill_in: list[str]
    """Keys without which no run starts."""
    problems: list[str]
    """Why it cannot run on this machine."""
    probe: TrialCost | None = None
    """Measurements, if they were asked for."""


def check_plan(
    spec: SweepSpec, machine: Machine, probe: bool, as_json: bool, console: Console
) -> ExitCode:
    """Print the sweep as understood, and what prevents it from running here.

    Args:
        spec: checked.
        machine: to run it on.
        probe: whether a few steps are trained to estimate the cost.
        as_json: whether the plan is printed as JSON, too.
        console: for all that is printed.

    Raises:
        SweepError: a file cannot be used, or the probe failed.
    """
    print_plan(spec, machine, console)
    if spec.confirm is not None:
        print_line(console, plan_of_confirmation(spec))
    missing, problems = missing_paths(spec), []
    for key in missing:
        print_line(console, f"to fill in before a run: {key}")
    if not missing:
        check_all_files(spec)
    try:
        check_machine(spec, machine)
    except SweepError as error:
        problems = str(error).splitlines()
        for text in problems:
            print_line(console, f"not here: {text}")
    measured = None
    if probe and not missing and not problems:
        measured = print_cost(spec, machine, lambda text: print_line(console, text))
        for line in resolution_lines(spec, measured.standard_error):
            print_line(console, line)
    print_line(console, f"{result_of(missing, problems)}; nothing was started")
    if as_json:
        print_json(plan_of(spec, machine, missing, problems, measured))
    return ExitCode.NOTHING_FOUND if missing or problems else ExitCode.OK


def check_all_files(spec: SweepSpec) -> None:
    """Check the files and the data of the sweep and of its confirmation.

    Raises:
        SweepError: the first one that cannot be used.
    """
    for part in [spec] if spec.confirm is None else [spec, spec.for_confirmation]:
        check_files(part)


def result_of(missing: list[str], problems: list[str]) -> str:
    """What the check found, in a line."""
    found = []
    if missing:
        found.append(f"{len(missing)} key{'s' * (len(missing) > 1)} to fill in")
    if problems:
        found.append(f"{len(problems)} problem{'s' * (len(problems) > 1)} on this machine")
    return ", ".join(found) or "the check found no mistake"


def plan_of(
    spec: SweepSpec,
    machine: Machine,
    missing: list[str],
    problems: list[str],
    measured: TrialCost | None,
) -> Plan:
    """The plan, for scripts."""
    return Plan(
        name=spec.name,
        file=spec.source,
        trials=spec.trials,
        at_once=machine.capacity(spec.resources),
        objective=spec.objective.metric,
        space={key: describe(parameter) for key, parameter in spec.space.items()},
        baselines=spec.baseline_parameters(),
        settings=spec.settings,
        to_fill_in=missing,
        problems=problems,
        probe=measured,
    )
