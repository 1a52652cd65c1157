"""Going on with a sweep, by reconciling what it left behind.

Three places know of a sweep: the study, the tracker and the folders of the trials. A driver that
is killed leaves them at different points. The study is right; the others are brought up to it:

- a trial whose outcome was written down is closed, in the study and in the tracker;
- a trial that was running is handed out again first, under its own number, with its settings, and
  goes on from its newest whole checkpoint;
- baselines that wait still wait; all that is left of the budget goes to new suggestions.

Ray Tune's own snapshot is not used: it knows less, and later.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from fsdet.report import BEST_EPOCH
from sweeps.errors import SweepError
from sweeps.search.searcher import tell
from sweeps.session.recorder import Recorder
from sweeps.spec import Objective, SweepSpec
from sweeps.spec.paths import FOUND, map_paths
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.found import content
from sweeps.study.study import WARM_START, TrialRecord, to_records
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial.trial import name_of, named

MUST_MATCH = ("space", "settings", "baselines", "objectives")
"""Parts of a sweep that make its trials comparable."""


def check_same(spec: SweepSpec, folder: SweepFolder) -> None:
    """Refuse to go on with a sweep that was another one.

    Raises:
        SweepError: names the keys that differ.
    """
    before, after = _comparable(folder.load_spec()), _comparable(spec)
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    if keys:
        raise SweepError(
            f"--resume: {spec.source} differs from {folder.spec} in {', '.join(keys)}: its trials could "
            "not be compared; undo that, or start a new sweep with --name"
        )


def _comparable(spec: SweepSpec) -> dict[str, Any]:
    """Dotted key -> value of everything that must not change; of a file its content, not its path."""
    spec = map_paths(spec, lambda _, key, value: content(value) if key in FOUND else value)
    values = spec.model_dump(mode="json")
    values["settings"] = json.loads(json.dumps(spec.settings, default=str))
    values["objectives"] = {str(i): o.model_dump() for i, o in enumerate(spec.objectives)}
    names = {"settings": "fixed", "objectives": "objective"}
    return {
        f"{names.get(part, part)}.{key}": value
        for part in MUST_MATCH
        for key, value in values[part].items()
    }


def finish_telling(study: optuna.Study, spec: SweepSpec) -> None:
    """Close the trials whose outcome was written down by a driver that died before it told."""
    for trial in study.get_trials(deepcopy=False):
        state = trial.user_attrs.get("state")
        if trial.state == TrialState.RUNNING and state in ENDED:
            tell(study, spec, trial.number, State(state))


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were running, by number."""
    return study.get_trials(deepcopy=False, states=[TrialState.RUNNING])


def ended(study: optuna.Study) -> list[FrozenTrial]:
    """The trials of this sweep that have ended."""
    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state.is_finished() and WARM_START not in t.user_attrs]


def left_to_run(study: optuna.Study, spec: SweepSpec) -> int:
    """Trials to run in this session: those that go on, and those that have not begun."""
    begun = len(to_records(study.get_trials(deepcopy=False)))
    return len(unfinished(study)) + max(0, spec.trials - begun)


def reconcile_runs(
    records: Sequence[TrialRecord],
    runs: Mapping[str, StoredRun],
    folder: Path,
    recorder: Recorder,
    tracker: Tracker,
    objective: Objective,
) -> None:
    """Bring the tracker up to the study: no run is missing, none is left open.

    Args:
        records: all trials.
        runs: trial's number as text -> run, as the tracker holds them.
        folder: of the trials.
        recorder: knows how a run begins and ends.
        tracker: with the parent run open.
        objective: of the sweep.
    """
    for trial in records:
        run, run_dir = runs.get(str(trial.number)), folder / f"{trial.number:04d}"
        if trial.state not in ENDED:
            if run is not None and run.running:
                own = recorder.fetch(trial.number, trial.parameters)
                tracker.adopt(str(trial.number), run.run_id)
                for report in recorded_reports(run_dir, objective) if own else ():
                    if report["metrics"]:  # steps behind the last evaluation are done again
                        tracker.log(str(trial.number), report)
                tracker.end(str(trial.number), Outcome(State.INTERRUPTED, "the sweep was killed"))
            continue
        if run is None or run.running:
            own = recorder.fetch(trial.number, trial.parameters)
        if (run is None and run_dir.is_dir()) or (run is not None and run.running):
            recorder.begin_run(trial.number, trial.baseline, trial.parameters)
            if trial.retried:
                recorder.tag_retried(trial.number)
            for report in recorded_reports(run_dir, objective) if own else ():
                tracker.log(str(trial.number), report)
            recorder.end_run(trial.number, Outcome(trial.state, trial.reason), own)


def recorded_reports(run_dir: Path, objective: Objective) -> Iterator[dict[str, Any]]:
    """What a trial reported, read back from the files that the trainer wrote."""
    steps = list(_lines(run_dir / "steps.jsonl"))
    for values in _with_best(run_dir / "evaluations.jsonl", objective):
        step, epoch = int(values.pop("step")), int(values.pop("epoch"))
        rows, steps = (
            [r for r in steps if r["step"] <= step],
            [r for r in steps if r["step"] > step],
        )
        best = {key: values.pop(key) for key in ("best", "best_epoch")}
        yield {"step": step, "epoch": epoch, "metrics": values, "history": _columns(rows), **best}
    if steps:  # an explosion has no evaluation
        last = int(steps[-1]["step"])
        yield {"step": last, "metrics": {}, "history": _columns(steps)}


def _with_best(path: Path, objective: Objective) -> Iterator[dict[str, Any]]:
    """Each evaluation with value and epoch of the best so far; the last one stands for its epoch's own."""
    rows = list(_lines(path))
    name, sign = name_of(objective), 1 if objective.mode == "max" else -1
    best: dict[str, Any] = {"best": None, "best_epoch": None}
    for number, row in enumerate(rows):
        row.pop("memory", None)
        value = named(row, name)
        if BEST_EPOCH in row:
            best = {"best": value, "best_epoch": int(row[BEST_EPOCH])}
        elif value is not None and (best["best"] is None or sign * value > sign * best["best"]):
            best = {"best": value, "best_epoch": int(row["epoch"])}
        if not any(BEST_EPOCH in following for following in rows[number + 1 : number + 2]):
            yield {**row, **best}


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows], np.float64) for key in keys}


def _lines(path: Path) -> Iterator[dict[str, float]]:
    """Each line's numbers; a line that was cut off ends the file."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            return
        yield {key: float(value) for key, value in values.items()}
