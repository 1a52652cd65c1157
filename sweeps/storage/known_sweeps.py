"""The sweeps that have begun, here and in a storage, by the time of their latest session."""

from __future__ import annotations

import argparse

from sweeps.errors import SweepError
from sweeps.storage.folder import SweepFolder
from sweeps.storage.lookup import folder_at, sweeps_in, sweeps_root

BEGAN = "began"
"""Key in a sweep's record: when its latest session began, in seconds since 1970."""


def add_storage_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--storage` to a command line that names a sweep or lists them."""
    parser.add_argument(
        "--storage", metavar="PATH", help="the storage.path of the sweep's YAML, where it has one"
    )


def sweeps_by_time(storage: str | None = None) -> list[tuple[SweepFolder, float]]:
    """The folders of all sweeps and when their latest sessions began, the latest first.

    Args:
        storage: see `sweeps_root`.

    Raises:
        SweepError: the storage cannot be read.
    """
    folders = [folder_at(name, storage) for name in sorted(sweeps_in(storage))]
    for folder in folders:
        folder.download()
    return sorted(((folder, _began(folder)) for folder in folders), key=lambda found: -found[1])


def latest_sweep(storage: str | None = None) -> SweepFolder:
    """The folder of the sweep whose latest session began last.

    Raises:
        SweepError: there is no sweep, or the storage cannot be read.
    """
    found = sweeps_by_time(storage)
    if not found:
        raise SweepError(
            f"no sweeps in {storage or sweeps_root()}; `python -m sweeps.run FILE` starts one"
        )
    return found[0][0]


def _began(folder: SweepFolder) -> float:
    try:
        return float(folder.load_record()[BEGAN])
    except (KeyError, TypeError, ValueError):
        return folder.spec_file.stat().st_mtime
