"""Where the study of a sweep is stored: decided when the sweep begins, recorded for later."""

from __future__ import annotations

import os

from sweeps.config import SweepSpec
from sweeps.config.sections import STUDY_VARIABLE
from sweeps.errors import SweepError
from sweeps.secrets import full_url, without_password
from sweeps.storage.folder import SweepFolder
from sweeps.study.database import DatabaseStore
from sweeps.study.store import JournalStore, StudyStore

JOURNAL = "journal"
"""In a sweep's record: the study is a file in its folder."""


def study_url(spec: SweepSpec) -> str | None:
    """Database named in the YAML, else by OPTUNA_STORAGE; None for a file."""
    return spec.storage.study or os.environ.get(STUDY_VARIABLE) or None


def check_separate_databases(spec: SweepSpec, tracking: str) -> None:
    """Refuse one database for study and runs: Optuna and MLflow have a table of the same name.

    Raises:
        SweepError: both are to be in one database.
    """
    url = study_url(spec)
    if url is not None and url.partition("?")[0] == tracking.partition("?")[0]:
        raise SweepError(
            f"{spec.source}: storage.study and tracking.uri are one database, "
            f"{without_password(url)}, which Optuna and MLflow cannot share; give each its own"
        )


def begin_store(spec: SweepSpec, folder: SweepFolder) -> StudyStore:
    """The store of a sweep that is run now; a sweep stays with the one that it began with.

    Raises:
        SweepError: it began with another one than the YAML names.
    """
    kept, url = recorded_study(folder), study_url(spec)
    if kept is None:
        kept = JOURNAL if url is None else without_password(url)
        folder.update_record(study=kept)
        return store_of(folder, url, new=True)
    asked = spec.storage.study
    if asked is not None and without_password(asked) != kept:
        began = f"a file, {folder.study}" if kept == JOURNAL else kept
        raise SweepError(
            f"{spec.source}: storage.study: {folder.name} has its study in {began}; name that, or "
            "start a new sweep with --name"
        )
    return store_of(folder, asked)


def store_of(folder: SweepFolder, url: str | None = None, new: bool = False) -> StudyStore:
    """The store of a sweep that has begun.

    Args:
        folder: of the sweep.
        url: of its database, if it is known; otherwise the record and OPTUNA_STORAGE give it.
        new: whether the sweep begins just now.

    Raises:
        SweepError: its password is not known, or its file is on another machine.
    """
    kept = recorded_study(folder)
    if kept is None and not new and folder.is_record_lost():
        raise SweepError(
            f"{folder.record}: it is lost, and with it where the study of {folder.name} is; put "
            "it back from a backup, or let --resume restore it"
        )
    if kept is None or kept == JOURNAL:
        if folder.url is not None and not new and not folder.study.is_file():
            raise SweepError(
                f"sweep {folder.name}: its study is a file on the machine that began it, not on this "
                f"one ({folder.study}); resume it there, or give the next sweep a storage.study"
            )
        return JournalStore(folder.study)
    what = f"sweep {folder.name}: its study"
    whole = url or full_url(kept, STUDY_VARIABLE, what)
    return DatabaseStore(whole, study_name(folder), folder.path)


def recorded_study(folder: SweepFolder) -> str | None:
    """Where the study is, without a secret; None before the sweep has one."""
    kept = folder.load_record().get("study")
    return JOURNAL if kept is None and folder.study.is_file() else kept


def study_name(folder: SweepFolder) -> str:
    """Of a study among others: equal names of two people must not meet."""
    return f"{folder.name}.{folder.sweep_id()}"
