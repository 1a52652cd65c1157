"""The confirmed winner of a sweep: its `best.yaml` and its trial."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sweeps.config import SweepSpec
from sweeps.confirmation.report import conclusions
from sweeps.confirmation.results import FILE, Confirmation, load_confirmation
from sweeps.session.summary import write_configuration
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
    """Write the confirmed configuration to `best.yaml`; None without a winner."""
    winner = confirmation.winner
    if winner is None:
        return None
    findings = [
        f"Best of sweep {folder.name}, confirmed: {winner.candidate.label}",
        *conclusions(confirmation),
    ]
    return write_configuration(spec, folder, winner.candidate.parameters, findings)
