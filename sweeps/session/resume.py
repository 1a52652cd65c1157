"""Resuming a sweep: reconciles study, tracker and trial folders after an earlier session.

A driver that is killed leaves the three at different points. The study is authoritative; the others are
brought up to date with it:

- a trial whose outcome was recorded is closed, in the study and in the tracker; a paused one stays open in the study;
- a trial that was running is resumed first, under its own number and with its settings, from its newest
  intact checkpoint;
- baselines that have not begun come next; then paused trials are promoted, and new ones suggested, as if the
  sweep had never ended.

The study lists the trials, `tracking.json` the runs. A lost record is restored from the tags of the runs; a
study that has lost trials is refused, since new trials would get their folders and runs. Ray Tune's own
snapshot is not used: it holds less and is written later.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from fsdet.reading import read_rows
from fsdet.report import BEST_EPOCH, EARLY_EPISODES, EVALUATIONS_FILE, STEPS_FILE
from sweeps.config import Objective, SweepSpec
from sweeps.config.paths import INPUT_PATHS, map_settings
from sweeps.errors import SweepError
from sweeps.search.outcomes import tell
from sweeps.search.requests import build_request
from sweeps.session.callbacks import TrackerCallback
from sweeps.states import ENDED, Outcome, State
from sweeps.storage.folder import SweepFolder
from sweeps.storage.portable_files import content_key
from sweeps.study.records import TrialRecord
from sweeps.study.store import StudyStore
from sweeps.study.study import load_study
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial.identity import TRIAL_FILE, load_trial
from sweeps.trial.messages import BestValue, TrialReport, TrialRequest, find_metric
from sweeps.trial.trial import TrialContext

MUST_MATCH = ("space", "settings", "baselines", "objectives", "scheduler")
"""Parts of a sweep that make its trials comparable."""
EARLY_EVALUATIONS = {"early_eval_epochs", "early_eval_episodes"}


def check_same(spec: SweepSpec, folder: SweepFolder) -> None:
    """Refuse to resume a sweep with another configuration.

    Raises:
        SweepError: lists the keys that differ.
    """
    before, after = _comparable(folder.load_spec()), _comparable(spec)
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    if keys:
        raise SweepError(
            f"--resume: {spec.source} differs from {folder.spec_file} in {', '.join(keys)}: its trials could "
            "not be compared; undo that, or start a new sweep with --name"
        )


def _comparable(spec: SweepSpec) -> dict[str, Any]:
    """Dotted key -> value of everything that must not change; files are compared by content, not by path."""
    spec = map_settings(
        spec, lambda _, key, value: content_key(value) if key in INPUT_PATHS else value
    )
    values = spec.model_dump(mode="json")
    settings = json.loads(json.dumps(spec.settings, default=str))
    for key in EARLY_EVALUATIONS - spec.fixed.keys():
        settings.pop(key, None)  # it follows from the rungs
    values["settings"] = settings
    values["objectives"] = {str(i): o.model_dump() for i, o in enumerate(spec.objectives)}
    values["scheduler"] = {"rungs": spec.rungs}
    names = {"settings": "fixed", "objectives": "objective"}
    return {
        f"{names.get(part, part)}.{key}": value
        for part in MUST_MATCH
        for key, value in values[part].items()
    }


def close_recorded(study: optuna.Study, spec: SweepSpec) -> None:
    """Close the trials whose outcome was recorded but, since the driver was killed, not reported to Optuna."""
    for trial in study.get_trials(deepcopy=False):
        state = trial.user_attrs.get("state")
        if trial.state == TrialState.RUNNING and state in ENDED:
            tell(study, spec, trial.number, State(state))


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that were running, by number."""
    running = study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
    return [trial for trial in running if trial.user_attrs.get("state") != State.PAUSED]


def reconcile_runs(
    records: Sequence[TrialRecord],
    runs: Mapping[str, StoredRun],
    spec: SweepSpec,
    context: TrialContext,
    callback: TrackerCallback,
    tracker: Tracker,
) -> None:
    """Bring the tracker up to date with the study: no run is missing or left open.

    Args:
        records: all trials.
        runs: tag `sweep.trial` -> run in the tracker.
        spec: of the sweep.
        context: of the trials.
        callback: begins and ends runs.
        tracker: with the parent run open.
    """
    for key, stored in runs.items():
        if key:  # not the parent, which has begun
            tracker.adopt(key, stored.run_id)
    latest = {record.run_key: record for record in records}  # a failed run is retried under its key
    for record in latest.values():
        run, settled = runs.get(record.run_key), record.state in (*ENDED, State.PAUSED)
        if is_current(record, run):
            continue  # of most trials nothing is built or downloaded
        request = build_request(record, spec, context)
        run_dir = context.run_dir(record.folder)
        own = callback.download(request)
        if not settled:
            if run is None:  # its session was killed before a transaction held it
                callback.begin_run(request)
            for report in recorded_reports(run_dir, spec.objective) if own else ():
                if report.metrics:  # steps after the last evaluation will be repeated
                    tracker.log(record.run_key, report)
            tracker.end(record.run_key, Outcome(State.INTERRUPTED, "the sweep was killed"))
        elif run is not None or run_dir.is_dir():
            restore_run(record, request, spec.objective, callback, tracker, run_dir, own)


def is_current(record: TrialRecord, run: StoredRun | None) -> bool:
    """Whether the tracker has what it should have of a trial when no session runs."""
    if record.state not in (*ENDED, State.PAUSED):
        # the last second of a killed session may be missing, and a trial does not repeat what is in its checkpoint
        return run is None and record.value is None
    if run is None:
        return False
    return not run.running and not (run.paused and record.state in ENDED)


def restore_run(
    record: TrialRecord,
    request: TrialRequest,
    objective: Objective,
    callback: TrackerCallback,
    tracker: Tracker,
    run_dir: Path,
    own: bool,
) -> None:
    """Write the run of a trial that has ended or paused from its files; `own`: whether they belong to it."""
    callback.begin_run(request)
    if record.retried:
        callback.on_retry(request)
    for report in recorded_reports(run_dir, objective) if own else ():
        tracker.log(record.run_key, report)
    files = own and record.state is not State.PAUSED
    callback.end_run(request, Outcome(record.state, record.reason), record.value, files)


def recorded_reports(run_dir: Path, objective: Objective) -> Iterator[TrialReport]:
    """The reports of a trial, restored from the files that the trainer wrote.

    Raises:
        SweepError: a file is damaged.
    """
    steps = list(read_rows(run_dir / STEPS_FILE, ("step",), SweepError))
    epoch = 0
    for values, best in _with_best(run_dir / EVALUATIONS_FILE, objective):
        step, epoch = int(values.pop("step")), int(values.pop("epoch"))
        rows, steps = (
            [r for r in steps if r["step"] <= step],
            [r for r in steps if r["step"] > step],
        )
        yield TrialReport("running", step, epoch, best=best, metrics=values, history=_columns(rows))
    if steps:  # an explosion has no evaluation
        yield TrialReport("running", int(steps[-1]["step"]), epoch, history=_columns(steps))


def _with_best(
    path: Path, objective: Objective
) -> Iterator[tuple[dict[str, float], BestValue | None]]:
    """Each evaluation with the best so far; the last one replaces that of its epoch.

    An early evaluation, over fewer episodes, is the best only until the first full one.
    """
    rows = list(read_rows(path, ("step", "epoch"), SweepError))
    best: BestValue | None = None
    best_rank = (False, -math.inf)
    for number, row in enumerate(rows):
        row.pop("memory", None)
        full = row.pop(EARLY_EPISODES, None) is None
        value = find_metric(row, objective.name)
        if BEST_EPOCH in row:
            best = BestValue(value, int(row.pop(BEST_EPOCH)))
        elif value is not None and (rank := (full, objective.sign * value)) > best_rank:
            best, best_rank = BestValue(value, int(row["epoch"])), rank
        if not any(BEST_EPOCH in following for following in rows[number + 1 : number + 2]):
            yield row, best


def _columns(rows: Sequence[Mapping[str, float]]) -> dict[str, np.ndarray]:
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: np.array([row.get(key, np.nan) for row in rows], np.float64) for key in keys}


def check_study(store: StudyStore, folder: SweepFolder, runs: Mapping[str, StoredRun]) -> None:
    """Refuse a study without a trial that has a folder or a run.

    A trial is written to the study before its folder and its run exist, so such a study has lost trials. New
    ones would get their numbers, folders and runs.

    Args:
        store: locked and repaired.
        folder: of the sweep.
        runs: tag `sweep.trial` -> run in the tracker.

    Raises:
        SweepError: lists the trials and the fix.
    """
    found = {*folder.trial_folders(), *(int(key) for key in runs if key.isdigit())}
    if lost := sorted(found - begun_trials(store)):
        numbers = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        trials = folder.url_of("trials") or folder.trials_dir
        raise SweepError(
            f"{store.place}: the study has lost trials: it does not hold {numbers}, whose results are in "
            f"{trials} and MLflow, and new trials would overwrite them; restore the study from a "
            "backup, or start a new sweep with --name NAME"
        )


def begun_trials(store: StudyStore) -> set[int]:
    """Numbers of all trials that have begun.

    Raises:
        SweepError: the study cannot be read.
    """
    if not store.exists():
        return set()
    try:
        trials = load_study(store).get_trials(deepcopy=False)
    except KeyError:  # the store holds no study
        return set()
    return {trial.number for trial in trials if trial.state != TrialState.WAITING}


def earlier_runs(tracker: Tracker, folder: SweepFolder) -> dict[str, StoredRun]:
    """Tag `sweep.trial`, or the empty string for the parent -> run of an earlier session.

    A lost record is restored first.

    Raises:
        SweepError: the store does not answer, or the runs of a lost record are not in it.
    """
    if folder.is_record_lost():
        restore_record(tracker, folder)
    return tracker.stored_runs(folder.sweep_id())


def restore_record(tracker: Tracker, folder: SweepFolder) -> None:
    """Restore the record of a sweep: its id from the trial folders, the rest from the tags of its run.

    Before the first trial there is nothing to restore.

    Raises:
        SweepError: the sweep's run is not in the store.
    """
    trials = folder.trial_folders().values()
    if not trials:
        return
    ids = Counter(
        load_trial(folder.download_trial_file(name, TRIAL_FILE).parent).get("sweep")
        for name in trials
    )
    # the id of most folders: some may have been copied from another sweep
    sweep_id = max(filter(None, ids), key=lambda found: ids[found], default=None)
    parent = tracker.stored_runs(sweep_id).get("") if sweep_id else None
    if parent is None:
        raise SweepError(
            f"{folder.record_file}: it is lost or damaged, and {tracker.public_uri} holds no run of this sweep, "
            "so all of its runs would be duplicated; restore the file from a backup, set tracking.uri or "
            "MLFLOW_TRACKING_URI to the store that has the runs, or start a new sweep with --name NAME"
        )
    record = {"sweep_id": sweep_id, "uri": tracker.public_uri, "run_id": parent.run_id}
    folder.save_record({**record, **({"study": parent.study} if parent.study else {})})
