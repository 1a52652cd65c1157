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
"""Value in a sweep's record if the study is a file in its folder."""


def study_url(spec: SweepSpec) -> str | None:
    """URL of the database from the YAML or from OPTUNA_STORAGE; None for a file."""
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
    """The store of a sweep that is run now. It is chosen when the sweep begins and never changes.

    Raises:
        SweepError: the YAML gives another store.
    """
    recorded, url = recorded_study(folder), study_url(spec)
    if recorded is None:
        recorded = JOURNAL if url is None else without_password(url)
        folder.update_record(study=recorded)
        return store_of(folder, url, new=True)
    requested = spec.storage.study
    if requested is not None and without_password(requested) != recorded:
        place = f"a file, {folder.study_file}" if recorded == JOURNAL else recorded
        raise SweepError(
            f"{spec.source}: storage.study: the study of {folder.name} is in {place}; set storage.study to "
            "that, or start a new sweep with --name"
        )
    return store_of(folder, requested)


def store_of(folder: SweepFolder, url: str | None = None, new: bool = False) -> StudyStore:
    """The store of a sweep that has begun.

    Args:
        folder: of the sweep.
        url: of its database, if it is known; otherwise it is taken from the record and OPTUNA_STORAGE.
        new: whether the sweep begins now.

    Raises:
        SweepError: its password is not known, or its file is on another machine.
    """
    recorded = recorded_study(folder)
    if recorded is None and not new and folder.is_record_lost():
        raise SweepError(
            f"{folder.record_file}: it is lost, and with it the location of the study of {folder.name}; restore "
            "it from a backup or by --resume"
        )
    if recorded is None or recorded == JOURNAL:
        if folder.url is not None and not new and not folder.study_file.is_file():
            raise SweepError(
                f"sweep {folder.name}: its study is a file on the machine that began it, not on this "
                f"one ({folder.study_file}); resume it there, or give the next sweep a storage.study"
            )
        return JournalStore(folder.study_file)
    what = f"sweep {folder.name}: its study"
    full = url or full_url(recorded, STUDY_VARIABLE, what)
    return DatabaseStore(full, study_name(folder), folder.path)


def recorded_study(folder: SweepFolder) -> str | None:
    """Where the study is, without a secret; None before the sweep has one."""
    recorded = folder.load_record().get("study")
    return JOURNAL if recorded is None and folder.study_file.is_file() else recorded


def study_name(folder: SweepFolder) -> str:
    """Name of the study in a database; the sweep's id keeps it apart from sweeps of the same name."""
    return f"{folder.name}.{folder.sweep_id()}"
