"""The confirmed winner of a sweep: its `best.yaml` and its trial."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from fsdet.files import write_text_atomic
from sweeps.confirmation.measured import FILE, Confirmation, load_confirmation
from sweeps.confirmation.words import conclusions
from sweeps.session.display import in_words
from sweeps.spec import SweepSpec
from sweeps.storage.folder import SweepFolder
from sweeps.study.study import TrialRecord


def confirmation_of(spec: SweepSpec, folder: SweepFolder) -> Confirmation | None:
    """What was confirmed of a sweep; None if nothing was, or not to the end."""
    return None if spec.confirm is None else load_confirmation(folder.path / FILE)


def winning_trial(
    spec: SweepSpec, folder: SweepFolder, trials: Sequence[TrialRecord]
) -> TrialRecord | None:
    """The trial that searched the confirmed winner."""
    found = confirmation_of(spec, folder)
    if found is None or found.winner is None:
        return None
    number = found.winner.candidate.trial
    return next((trial for trial in trials if trial.number == number), None)


def write_winner(spec: SweepSpec, folder: SweepFolder, confirmation: Confirmation) -> Path | None:
    """Write the confirmed configuration as `best.yaml`, all but `checkpoint_dir`; None without one."""
    winner = confirmation.winner
    if winner is None:
        return None
    values = spec.config(winner.candidate.parameters).model_dump(mode="json")
    del values["checkpoint_dir"]
    lines = [
        f"Best of sweep {folder.name}, confirmed: {winner.candidate.label}",
        *conclusions(confirmation),
        f"Searched: {in_words(winner.candidate.parameters)}",
        f"Command: python -m fsdet.train --config {os.path.relpath(folder.best)}",
    ]
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    write_text_atomic(folder.best, "".join(f"# {line}\n" for line in lines) + text)
    folder.push(folder.best)
    return folder.best
