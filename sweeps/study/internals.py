"""The only module that uses private members of Optuna. One more is overridden in `sweeps.search.sampler`.

- `Trial(study, id)`: Optuna hands out a `Trial` that can be written only from `ask`, never again for a trial that is
  already running.
- `Study._storage`, `Study._study_id` and `JournalStorage._backend`: where a study is stored, by which id, and the file
  that it writes to.
- `FrozenTrial._system_attrs`: a copy shares them with the trial that it was made of.
- `JournalFileBackend._log_number_offset`: one entry for each line of the file, which grows without limit.
- `CmaEsSampler._get_trials` (in `sweeps.search.sampler`): the trials that CMA-ES ranks.
"""

from __future__ import annotations

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial


def running_trial(study: optuna.Study, number: int) -> optuna.Trial:
    """The running trial `number`, to report to and to suggest for, whichever process created it."""
    return optuna.Trial(study, _trial_id(study, number))


def frozen_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Trial `number`, to be read only; in constant time, while `Study.get_trials` lists all."""
    return study._storage.get_trial(_trial_id(study, number))


def _trial_id(study: optuna.Study, number: int) -> int:
    return study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number)


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study writes to."""
    return study._storage


def with_constraint(copied: FrozenTrial, name: str, value: float) -> FrozenTrial:
    """A copy of a trial with a constraint that the trial itself does not get."""
    copied._system_attrs = dict(copied._system_attrs)
    copied.set_constraint(name, value)
    return copied


def backend_of(study: optuna.Study) -> object:
    """The journal backend of a study; None where it is stored elsewhere."""
    return getattr(study._storage, "_backend", None)


def drop_line_offsets(backend: JournalFileBackend) -> None:
    """Forget where each line of the journal begins, except the next one to be read."""
    newest = max(backend._log_number_offset)
    backend._log_number_offset = {0: 0, newest: backend._log_number_offset[newest]}
