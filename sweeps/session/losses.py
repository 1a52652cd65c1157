"""What a sweep has lost since its last session: made good from what is left, or refused.

The study says which trials there are, `tracking.json` which runs are theirs. Without them a session
would begin anew: its trials in the folders of others, its runs beside those that are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from optuna.trial import TrialState

from sweeps.errors import SweepError
from sweeps.storage.folder import SweepFolder
from sweeps.study.store import StudyStore
from sweeps.study.study import load_study
from sweeps.tracking import StoredRun, Tracker
from sweeps.trial.identity import FILE, load_trial


def check_study(store: StudyStore, folder: SweepFolder, runs: Mapping[str, StoredRun]) -> None:
    """Refuse a study that does not hold every trial of which a folder or a run is left.

    A trial is in the study before its folder and its run are made, so that such a study has lost
    trials. New ones would get their numbers, and with them folders and runs.

    Args:
        store: held and mended.
        folder: of the sweep.
        runs: trial's number as text -> run, as the tracker holds them.

    Raises:
        SweepError: names the trials and the cure.
    """
    found = {*folder.trial_folders(), *(int(key) for key in runs if key)}
    if lost := sorted(found - begun(store)):
        numbers = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
        trials = folder.below("trials") or folder.trials
        raise SweepError(
            f"{store.place}: the study has lost trials: it does not hold {numbers}, whose results are in "
            f"{trials} and MLflow, and new trials would take their places; put the study back from a "
            "backup, or start a new sweep with --name NAME"
        )


def begun(store: StudyStore) -> set[int]:
    """Numbers of all trials that have begun.

    Raises:
        SweepError: the study cannot be read.
    """
    if not store.is_there():
        return set()
    try:
        trials = load_study(store).get_trials(deepcopy=False)
    except KeyError:  # the store holds no study
        return set()
    except ValueError as error:
        raise SweepError(
            f"{store.place}: the study is damaged ({error}); put it back from a backup, or start a new "
            "sweep with --name NAME"
        ) from None
    return {trial.number for trial in trials if trial.state != TrialState.WAITING}


def earlier_runs(tracker: Tracker, folder: SweepFolder) -> dict[str, StoredRun]:
    """Trial's number as text, or the empty string for the parent -> run of an earlier session.

    A record that was lost is first written again.

    Raises:
        SweepError: the store does not answer, or does not hold the runs of a record that was lost.
    """
    if folder.lacks_record():
        restore_record(tracker, folder)
    return tracker.stored_runs(folder.sweep_id())


def restore_record(tracker: Tracker, folder: SweepFolder) -> None:
    """Write the record of a sweep again: its id from the trials' folders, the rest from the tags of its run.

    Before the first trial there is nothing to be found again.

    Raises:
        SweepError: the store does not hold the sweep's run.
    """
    trials = folder.trial_folders().values()
    if not trials:
        return
    ids = Counter(
        load_trial(folder.fetch_trial_file(name, FILE).parent).get("sweep") for name in trials
    )
    # a folder that was put there from another sweep is outnumbered
    sweep_id = max(filter(None, ids), key=lambda found: ids[found], default=None)
    parent = tracker.stored_runs(sweep_id).get("") if sweep_id else None
    if parent is None:
        raise SweepError(
            f"{folder.record}: it is lost or damaged, and {tracker.public_uri} holds no run of this sweep, "
            "so that all of its runs would be doubled; put it back from a backup, name the store that has "
            "the runs (tracking.uri or MLFLOW_TRACKING_URI), or start a new sweep with --name NAME"
        )
    record = {"sweep_id": sweep_id, "uri": tracker.public_uri, "run_id": parent.run_id}
    folder.save_record({**record, **({"study": parent.study} if parent.study else {})})
