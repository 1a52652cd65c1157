"""The Optuna study of a sweep: opened in its store, and read back as plain records.

The study is the authoritative record of a sweep: suggestions and outcomes are written to its store before
anything else. An interrupted trial stays RUNNING in it, so that it can resume under its own number; its
user attribute `state` is `interrupted`.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from sweeps.config import SweepSpec
from sweeps.errors import SweepError
from sweeps.states import State
from sweeps.study.records import (
    DAMAGED,
    PRESET,
    WARM_START,
    Preset,
    TrialRecord,
    damage,
    to_records,
)
from sweeps.study.store import JournalStore, StudyStore

optuna.logging.set_verbosity(optuna.logging.WARNING)

CONSTRAINT = "explosion"
"""Constraint of every trial: above 0 means that it exploded."""


def create_study(store: StudyStore, spec: SweepSpec, sampler: BaseSampler) -> optuna.Study:
    """The study in `store`, created where it is missing, with the objectives by their names."""
    study = optuna.create_study(
        storage=store.storage(),
        sampler=sampler,
        study_name=store.name,
        directions=[objective.direction for objective in spec.objectives],
        load_if_exists=True,
    )
    names: list[str] = [objective.metric for objective in spec.objectives]
    if study.metric_names != names:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(names)
    return study


def add_preset(study: optuna.Study, spec: SweepSpec, preset: Preset) -> int:
    """Add a running trial with given settings; returns its number.

    In one write, so that a killed driver leaves either the complete trial or none.
    """
    distributions = spec.distributions()
    given = asdict(preset)
    parameters, baseline = given.pop("parameters"), given.pop("baseline")
    attributes: dict[str, Any] = {"state": str(State.RUNNING), "baseline": baseline}
    if preset.key:
        attributes[PRESET] = given
    trial = optuna.trial.create_trial(
        state=TrialState.RUNNING,
        params=parameters,
        distributions={key: distributions[key] for key in parameters},
        user_attrs={key: value for key, value in attributes.items() if value is not None},
    )
    study.add_trial(trial)
    # only this process adds trials: the newest is that one
    return study.get_trials(deepcopy=False)[-1].number


def baselines_left(study: optuna.Study, spec: SweepSpec) -> list[Preset]:
    """The baselines that have not begun."""
    begun = {t.user_attrs.get("baseline") for t in study.get_trials(deepcopy=False)}
    given = spec.baseline_parameters()
    return [Preset(values, name) for name, values in given.items() if name not in begun]


def load_study(store: StudyStore) -> optuna.Study:
    """The study in `store`.

    Raises:
        KeyError: it holds none.
        SweepError: it is damaged.
    """
    try:
        storage = store.storage()
    except DAMAGED as error:
        raise SweepError(f"{store.place}: {damage(error)}") from None
    return optuna.load_study(study_name=store.name, storage=storage)


def read_trials(place: StudyStore | Path) -> list[TrialRecord]:
    """All trials in the store, by number. Running trials whose driver is gone are interrupted.

    Args:
        place: a store, or the path of a journal file.

    Raises:
        SweepError: there is no study.
    """
    store = JournalStore(place) if isinstance(place, Path) else place
    return to_records(read_study(store).get_trials(deepcopy=False), alive=store.is_locked())


def read_study(store: StudyStore) -> optuna.Study:
    """The study in a store, to be read only.

    Raises:
        SweepError: there is none.
    """
    if not store.exists():
        raise SweepError(f"{store.place}: no study there; the sweep ended before its first trial")
    try:
        return load_study(store)
    except KeyError:
        raise SweepError(
            f"{store.place}: the study is empty; the sweep ended before it began"
        ) from None


def warm_start(study: optuna.Study, spec: SweepSpec, name: str, earlier: StudyStore) -> int:
    """Add the trials of the sweep `name` that lie within the space of `spec`; returns their number.

    Completed and exploded trials are copied, once. They count neither as trials nor in the budget.

    Raises:
        SweepError: there is no study in `earlier`.
    """
    if not earlier.exists():
        raise SweepError(f"{spec.source}: warm_start: {name} has no study in {earlier.place}")
    present = [t for t in study.get_trials(deepcopy=False) if WARM_START in t.user_attrs]
    if present:
        return len(present)
    copies = [trial for trial in load_study(earlier).get_trials() if _is_usable(trial, spec)]
    distributions = spec.distributions()
    for trial in copies:
        trial.distributions = {key: distributions[key] for key in trial.params}
        trial.user_attrs = {**trial.user_attrs, WARM_START: name, "baseline": None}
        if spec.sampler.reports_complete and trial.state == TrialState.PRUNED:
            values = list(trial.intermediate_values.values())
            trial.state, trial.values = TrialState.COMPLETE, values[-1:] or [0.0]
    study.add_trials(copies)
    return len(copies)


def _is_usable(trial: FrozenTrial, spec: SweepSpec) -> bool:
    """Whether a sampler of `spec` can learn from a trial of another study."""
    return (
        trial.user_attrs.get("state") in (State.COMPLETED, State.INFEASIBLE)
        and trial.state.is_finished()
        and spec.accepts(trial.params)
        and (trial.state != TrialState.COMPLETE or len(trial.values) == len(spec.objectives))
    )
