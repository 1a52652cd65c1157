"""How a trial on another node finds the files that a sweep names.

What lies in our own packages goes with the code. Other files are copied into the sweep's folder,
under a name that holds their content's digest. Folders, which are datasets, must be on every node.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.files import atomic_path
from sweeps.spec import SweepSpec
from sweeps.spec.paths import FOUND, map_paths
from sweeps.storage.folder import SweepFolder
from sweeps.storage.found import STORAGE, find, in_package, in_storage

Places = Mapping[str, str]
"""Path on the driver's machine -> place for everyone; paths that are the same everywhere are left out."""


def named_paths(spec: SweepSpec) -> list[str]:
    """Every file and folder that a trial can be told to read, absolute."""
    found: list[str] = []

    def note(_: str, key: str, value: object) -> object:
        if key in FOUND and isinstance(value, str):
            found.append(value)
        return value

    map_paths(spec, note)
    return list(dict.fromkeys(found))


def read_in_place(spec: SweepSpec) -> list[str]:
    """Folders that must be on every node."""
    return [path for path in named_paths(spec) if Path(path).is_dir()]


def ship(spec: SweepSpec, folder: SweepFolder) -> dict[str, str]:
    """Copy files into the folder of the sweep; returns where everyone finds each path.

    Raises:
        StorageError: the storage cannot be written.
    """
    return dict(_placed(spec, folder))


def shipped(spec: SweepSpec, folder: SweepFolder, here: bool) -> dict[str, str]:
    """`ship`, where another machine may run a trial, now or later.

    Args:
        spec: of the sweep.
        folder: of the sweep.
        here: whether this machine runs all trials of this session.
    """
    if spec.storage.path is None and here:
        return {}
    return ship(spec, folder)


def _placed(spec: SweepSpec, folder: SweepFolder) -> Iterator[tuple[str, str]]:
    for path in map(Path, named_paths(spec)):
        name = in_package(path)
        if name is None and path.is_file():
            name = in_storage(path)
            copy = folder.path / name.removeprefix(STORAGE)
            if not copy.is_file():
                with atomic_path(copy) as part:
                    shutil.copyfile(path, part)
                folder.push(copy, name.removeprefix(STORAGE))
        if name is not None:
            yield str(path), name


def settle(config: TrainConfig, places: Places, folder: Path, url: str | None) -> TrainConfig:
    """The same config with the paths of this machine.

    Args:
        config: with paths of the driver's machine.
        places: of these paths.
        folder: of the sweep; used where all machines share it.
        url: of the sweep; None if all machines share the folder.
    """
    given = {key: str(getattr(config, key)) for key in FOUND}
    here = {k: find(places[p], folder, url) for k, p in given.items() if p in places}
    return config.model_copy(update=here)
