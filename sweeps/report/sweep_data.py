"""`SweepData`: all that a report shows, read from the folder of a sweep and its study."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from optuna.trial import FrozenTrial, TrialState

from fsdet.config import TrainConfig
from fsdet.errors import ConfigError
from fsdet.report import STEPS_FILE
from sweeps.config import SweepSpec
from sweeps.confirmation.report import confirmation_of
from sweeps.confirmation.results import CONFIRM_FOLDER, Confirmation
from sweeps.report.run_series import RunSeries, read_series
from sweeps.session.summary import commands, resume_command
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.location import store_of
from sweeps.study.records import TrialRecord, best_of, curve_of, to_records
from sweeps.study.store import StudyStore
from sweeps.study.study import load_study, read_study

EXPLODED = re.compile(r"step (?P<step>\d+), (?P<rule>\w+) in (?P<module>\w*): (?P<detail>.*)", re.S)
"""The reason of an exploded trial, as `sweeps.trial.messages.to_report` writes it."""

BY_TENSOR = ("update", "adagc")
"""Clip modes of which a threshold acts in every regime."""

Watch = Callable[[Iterable["ShownTrial"]], Iterable["ShownTrial"]]
"""Passes trials on one by one, and shows how far it is."""


@dataclass(frozen=True)
class Explosion:
    """Where a trial exploded."""

    step: int
    rule: str
    module: str
    detail: str


@dataclass(frozen=True)
class ShownTrial:
    """One trial of the search, or one run of the confirmation."""

    record: TrialRecord
    curve: dict[int, float]
    """Epoch -> the objective, best so far."""
    config: TrainConfig | None = None
    """All its settings; None if this version of the trainer does not accept them."""
    series: RunSeries | None = None
    """Of its steps; None if it wrote none."""

    @property
    def number(self) -> int:
        """In the study."""
        return self.record.number

    @property
    def exploded(self) -> bool:
        """Whether it exploded."""
        return self.record.state is State.INFEASIBLE

    @property
    def explosion(self) -> Explosion | None:
        """Where it exploded; None if it did not, or does not say where."""
        match = EXPLODED.match(self.record.reason) if self.exploded else None
        if match is None:
            return None
        return Explosion(int(match["step"]), match["rule"], match["module"], match["detail"])

    @property
    def regime(self) -> str | None:
        """How often its steps were clipped; None if that was not measured, or if each tensor is clipped for itself."""
        by_tensor = self.config is not None and self.config.gradient_clip_mode in BY_TENSOR
        return None if self.series is None or by_tensor else self.series.regime

    @property
    def clip_norm(self) -> float | None:
        """The threshold at which its gradient norm was clipped; None without one."""
        config = self.config
        if config is None or config.gradient_clip_mode != "norm":
            return None
        return config.gradient_clip_norm or None


@dataclass(frozen=True)
class SweepData:
    """A sweep as it is now; it may still be running."""

    name: str
    spec: SweepSpec
    trials: tuple[ShownTrial, ...]
    """By number."""
    confirmation: Confirmation | None = None
    """None without one, or if it was not completed."""
    confirmation_runs: tuple[ShownTrial, ...] = ()
    """All runs of the confirmation."""
    commands: tuple[tuple[str, str], ...] = ()
    """What to type next, and what for."""
    resume: str = ""
    """The command that resumes the sweep."""
    timed: bool = True
    """Whether it was recorded when each trial trained; sweeps of earlier versions lack that."""

    @property
    def records(self) -> list[TrialRecord]:
        """The trials as the study stores them."""
        return [trial.record for trial in self.trials]

    @cached_property
    def best(self) -> ShownTrial | None:
        """The completed trial with the best value; None if none completed."""
        return self.find(best_of(self.records, self.spec.objective))

    @cached_property
    def winner(self) -> ShownTrial | None:
        """The trial whose settings were confirmed; without a confirmation the best of the search."""
        confirmed = None if self.confirmation is None else self.confirmation.winner
        if confirmed is None or confirmed.candidate.trial is None:
            return self.best
        number = confirmed.candidate.trial
        return next((t for t in self.trials if t.number == number), None)

    @cached_property
    def baselines(self) -> list[ShownTrial]:
        """The baselines, in the order of the YAML."""
        return [t for t in self.trials if t.record.baseline]

    @cached_property
    def judged(self) -> list[ShownTrial]:
        """Trials that exploded or trained without: neither failed, nor interrupted before their first evaluation."""
        return [t for t in self.trials if t.exploded or (t.curve and not self._failed(t))]

    @staticmethod
    def _failed(trial: ShownTrial) -> bool:
        return trial.record.state is State.FAILED

    def find(self, record: TrialRecord | None) -> ShownTrial | None:
        """The trial of this record."""
        return None if record is None else next(t for t in self.trials if t.record is record)

    def name_of(self, trial: ShownTrial) -> str:
        """`trial 7` or `baseline before`."""
        named = trial.record.baseline
        return f"trial {trial.number}" if named is None else f"baseline {named}"


def read_sweep(folder: SweepFolder, watch: Watch = lambda trials: trials) -> SweepData:
    """Read a sweep, running or ended.

    Args:
        folder: of the sweep.
        watch: shows how many trials have been read.

    Raises:
        SweepError: there is no study, or it cannot be read.
    """
    spec, store = folder.load_spec(), store_of(folder)
    frozen = read_study(store).get_trials(deepcopy=False)
    records = to_records(frozen, alive=store.is_locked())
    timed = all(record.legs or not record.seconds for record in records)
    shown = shown_trials(spec, frozen, records)
    read = (_with_series(trial, folder) for trial in watch(shown))
    return SweepData(
        name=folder.name,
        spec=spec,
        trials=tuple(read),
        timed=timed,
        confirmation=confirmation_of(spec, folder),
        confirmation_runs=read_confirmation(spec, store),
        commands=tuple(commands(spec, folder)),
        resume=resume_command(spec, folder),
    )


def shown_trials(
    spec: SweepSpec, frozen: Sequence[FrozenTrial], records: Sequence[TrialRecord]
) -> list[ShownTrial]:
    """The trials of a study, without their steps; `records`: of those that are shown."""
    stored = {trial.number: trial for trial in frozen}
    trials = [(record, stored[record.number]) for record in records]
    return [
        ShownTrial(_with_legs(record, trial), curve_of(trial), config_of(spec, trial))
        for record, trial in trials
    ]


def read_confirmation(spec: SweepSpec, store: StudyStore) -> tuple[ShownTrial, ...]:
    """The runs of the confirmation; none if there was none."""
    beside = store.beside(CONFIRM_FOLDER)
    try:
        frozen = load_study(beside).get_trials(deepcopy=False)
    except KeyError:
        return ()
    records = to_records(frozen, alive=beside.is_locked())
    return tuple(shown_trials(spec.for_confirmation, frozen, records))


def _with_series(trial: ShownTrial, folder: SweepFolder) -> ShownTrial:
    path = folder.trials_dir / trial.record.folder / STEPS_FILE
    if not path.is_file():
        path = folder.download_trial_file(trial.record.folder, STEPS_FILE)
    return replace(trial, series=read_series(path.parent))


def config_of(spec: SweepSpec, trial: FrozenTrial) -> TrainConfig | None:
    """All settings of a trial."""
    try:
        return spec.config(trial.params)
    except ConfigError:
        return None


def _with_legs(record: TrialRecord, trial: FrozenTrial) -> TrialRecord:
    """The record with one stretch of its whole time where none was recorded; see `SweepData.timed`."""
    if record.legs or not record.seconds or trial.datetime_start is None:
        return record
    begin = trial.datetime_start.timestamp()
    if trial.state is TrialState.COMPLETE and trial.datetime_complete is not None:
        begin = trial.datetime_complete.timestamp() - record.seconds
    return replace(record, legs=((begin, begin + record.seconds),))
