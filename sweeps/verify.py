"""`python -m sweeps.verify [NAME]`: does what a sweep recorded hold?

First the recorded first step of every trial is compared with the settings that were suggested for it, and with
those of the other trials. Then some trials, drawn at random, are trained again in this process, as far as they
came, and every value of every step and evaluation is compared with the recorded one, to the last digit.

Exit codes: 0 all equal; 1 a value differs on a CPU (a GPU does not repeat to the last digit), or there is
nothing to compare; 2 a mistake in the input; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fsdet.command import ExitCode, FlagParser, run_command
from fsdet.errors import ConfigError
from fsdet.json_output import add_json_flag, print_json, to_plain
from fsdet.progress import ProgressHandler
from fsdet.reading import Row
from fsdet.report import BEST_EPOCH, EVALUATIONS_FILE, FIRST_STEP_FILE, STEPS_FILE
from fsdet.run_files import load_evaluations, load_steps, metrics_of
from sweeps.errors import SweepError
from sweeps.rerun import Source, new_run_dir
from sweeps.secrets import without_password
from sweeps.session.session import trial_context
from sweeps.states import State
from sweeps.storage.known_sweeps import add_storage_flag, latest_sweep
from sweeps.storage.lookup import find_folder
from sweeps.study.location import store_of
from sweeps.study.study import read_trials
from sweeps.trial.effect import FirstSteps, read_first_step
from sweeps.trial.trial import TrialContext, default_train

TRAINED = (State.COMPLETED, State.PRUNED, State.INFEASIBLE)
"""How a trial ended that can be compared: at a known step, by its own settings."""


@dataclass(frozen=True)
class FirstStepsFound:
    """What the recorded first steps of a sweep say."""

    trials: int
    """That have ended, by their settings or by an explosion."""
    recorded: int
    """Of these, whose first step is recorded."""
    wrong: list[str]
    """Why a trial did not train with its settings, or trained like another one; one line each."""


@dataclass(frozen=True)
class Repeated:
    """A trial that was trained again."""

    trial: int
    steps: int
    """That both have."""
    evaluations: int
    """That both have."""
    difference: str | None
    """The first value that differs; None if all are equal."""
    run_dir: Path | None
    """Files of the run, which are kept if it differs."""


def check_first_steps(sources: Sequence[Source], context: TrialContext) -> FirstStepsFound:
    """Compare the recorded first steps of trials with their settings and with each other."""
    first_steps, recorded, wrong = FirstSteps(), 0, []
    for source in sources:
        run_dir = context.run_dir(source.trial.folder)
        context.download(source.trial.folder, [FIRST_STEP_FILE])
        first = read_first_step(run_dir)
        if first is None:
            continue
        recorded += 1
        if why := first_steps.check(source.label, source.config(run_dir), first):
            wrong.append(why)
    return FirstStepsFound(len(sources), recorded, wrong)


def repeat(source: Source, context: TrialContext) -> Repeated:
    """Train a trial again, as far as it came, and compare."""
    trial = source.trial
    context.download(trial.folder, [STEPS_FILE, EVALUATIONS_FILE])
    before, run_dir = context.run_dir(trial.folder), new_run_dir(source)
    recorded = load_evaluations(before)
    until = int(recorded[-1]["epoch"]) if trial.state is State.PRUNED and recorded else None
    default_train()(source.config(run_dir), None, None, until)
    steps = differing_steps(load_steps(before), load_steps(run_dir))
    evaluations = differing_evaluations(recorded, load_evaluations(run_dir))
    found = next((what for what in (*steps, *evaluations) if what is not None), None)
    if found is None:
        shutil.rmtree(run_dir)
    kept = None if found is None else run_dir
    return Repeated(trial.number, len(steps), len(evaluations), found, kept)


def differing_steps(before: Sequence[Row], after: Sequence[Row]) -> list[str | None]:
    """What differs at each step, in words; None where nothing does."""
    then, now = ({int(row["step"]): row for row in rows} for rows in (before, after))
    return [difference(step, then.get(step), now.get(step)) for step in sorted({*then, *now})]


def differing_evaluations(before: Sequence[Row], after: Sequence[Row]) -> list[str | None]:
    """The same for the evaluations that both have: a trial that pauses is evaluated there, too."""
    then, now = (
        {(int(row["step"]), BEST_EPOCH in row): metrics_of(row) for row in rows}
        for rows in (before, after)
    )
    return [difference(at[0], then[at], now[at]) for at in sorted(then.keys() & now.keys())]


def difference(step: int, before: Row | None, after: Row | None) -> str | None:
    """The first value that differs at a step, in words; None if none does."""
    if before is None or after is None:
        return f"step {step}, which is missing in {'the trial' if before is None else 'the repetition'}"
    for key in sorted({*before, *after}):
        was, now = before.get(key), after.get(key)
        if was != now and not (_is_nan(was) and _is_nan(now)):
            return f"step {step}: {key} was {was}, is {now}"
    return None


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def verify(name: str | None, storage: str | None, count: int, seed: int, as_json: bool) -> ExitCode:
    """Check a sweep and print what was found; returns the exit code.

    Args:
        name: of the sweep; None for the latest.
        storage: see `sweeps_root`.
        count: of trials to repeat.
        seed: of the draw.
        as_json: whether JSON is printed instead of lines.

    Raises:
        SweepError: there is no such sweep, or it cannot be read.
        FsdetError: a trial cannot be run here.
    """
    folder = latest_sweep(storage) if name is None else find_folder(name, storage)
    spec = folder.load_spec()
    ended = [trial for trial in read_trials(store_of(folder)) if trial.state in TRAINED]
    sources = [Source(folder, spec, trial) for trial in ended]
    context = trial_context(spec, folder, folder.trials_dir.name, {})
    out = sys.stderr if as_json else sys.stdout
    found = check_first_steps(sources, context)
    print("\n".join(first_step_lines(folder.name, found)), file=out, flush=True)
    repeated = []
    for source in drawn(sources, count, seed):
        print(f"{source.label}: training it again", file=out, flush=True)
        repeated.append(repeat(source, context))
        print(repeated_line(repeated[-1]), file=out, flush=True)
    differ = sum(one.difference is not None for one in repeated)
    if as_json:
        print_json({"first_steps": to_plain(found), "repeated": [to_plain(r) for r in repeated]})
    else:
        print(verdict(folder.name, found, repeated, bool(spec.resources.gpu_share)))
    ok = not found.wrong and (found.recorded or repeated)
    return (
        ExitCode.OK if ok and (not differ or spec.resources.gpu_share) else ExitCode.NOTHING_FOUND
    )


def drawn(sources: Sequence[Source], count: int, seed: int) -> list[Source]:
    """At most `count` of the trials, at random, by number."""
    chosen = Random(seed).sample(list(sources), min(count, len(sources)))
    return sorted(chosen, key=lambda source: source.trial.number)


def first_step_lines(name: str, found: FirstStepsFound) -> list[str]:
    """What the first steps say, for people."""
    if not found.recorded:
        return [f"{name}: no first step is recorded of its {found.trials} trials that trained"]
    head = f"{name}: the first steps of {found.recorded} of {found.trials} trials are recorded: "
    if found.wrong:
        return [head + f"{len(found.wrong)} are wrong", *(f"  {line}" for line in found.wrong)]
    return [
        head + "all used the settings suggested for them, and no two are alike that should differ"
    ]


def repeated_line(found: Repeated) -> str:
    """How one repetition came out."""
    if found.difference is not None:
        return f"  differs at {found.difference}; files in {found.run_dir}"
    return f"  {found.steps} steps, {found.evaluations} evaluations: equal to the last digit"


def verdict(name: str, found: FirstStepsFound, repeated: Sequence[Repeated], on_gpu: bool) -> str:
    """The last line."""
    differ = sum(one.difference is not None for one in repeated)
    if found.wrong:
        return f"{name} cannot be trusted"
    if differ and on_gpu:
        return f"{differ} of {len(repeated)} differ: on a GPU sums are not repeatable to the last digit"
    if differ:
        return f"{differ} of {len(repeated)} differ: other versions, another processor, or damage"
    return f"{name}: all that was compared is equal"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    warnings_only = ProgressHandler(logging.WARNING, sys.stderr)
    logging.basicConfig(handlers=[warnings_only], format="%(levelname)s: %(message)s")

    def body() -> int:
        options = parse(arguments)
        return verify(options.name, options.storage, options.trials, options.seed, options.json)

    return run_command(body, mistakes=(SweepError,), redact=without_password)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line.

    Raises:
        ConfigError: a flag cannot be used.
    """
    parser = FlagParser("python -m sweeps.verify", description=__doc__)
    parser.add_argument("name", nargs="?", help="name of the sweep; by default the latest")
    parser.add_argument(
        "--trials", type=int, default=2, metavar="K", help="trials to train again (default 2)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of their draw (default 0)")
    add_storage_flag(parser)
    add_json_flag(parser)
    options = parser.parse_args(arguments)
    if options.trials < 0:
        rule = f"must be 0 or more, but got {options.trials}"
        raise ConfigError(f"--trials: {rule}; 0 compares the first steps only")
    return options


if __name__ == "__main__":
    sys.exit(main())
