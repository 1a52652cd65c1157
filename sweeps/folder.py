"""The folder of a sweep, `mlruns/sweeps/<name>/`, and the rule by which names stay apart.

A sweep never goes into the folder of an earlier one unless it resumes it: its name must be free,
or be left to be numbered (`name-2`). One process at a time works in a folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from fsdet.errors import nearest
from fsdet.files import write_text_atomic
from sweeps.errors import SweepError
from sweeps.spec import SweepSpec

LOCK = ".lock"
"""Held by the process that runs the sweep; the system releases it when that process dies."""


@dataclass(frozen=True)
class SweepFolder:
    """Where one sweep keeps its files."""

    path: Path
    """Absolute: trials run in other working directories."""

    @property
    def name(self) -> str:
        """Name of the sweep."""
        return self.path.name

    @property
    def study(self) -> Path:
        """Every suggestion and every outcome."""
        return self.path / "study.journal"

    @property
    def spec(self) -> Path:
        """The sweep as it was run, all values written out."""
        return self.path / "sweep.yaml"

    @property
    def record(self) -> Path:
        """What ties the sweep to its tracking store."""
        return self.path / "tracking.json"

    @property
    def best(self) -> Path:
        """The best configuration."""
        return self.path / "best.yaml"

    @property
    def ray(self) -> Path:
        """Ray's own files, made anew in every session."""
        return self.path / "ray"

    @property
    def ray_log(self) -> Path:
        """What Ray has to say."""
        return self.path / "ray.log"

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.path / "trials"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep all other processes from running this sweep.

        Raises:
            SweepError: another one runs it.
        """
        try:
            with FileLock(self.path / LOCK, timeout=1):
                yield
        except Timeout:
            raise SweepError(
                f"sweep {self.name} is being run by another process; wait for its end, stop it, or "
                "start a second one with --name"
            ) from None

    def save_spec(self, spec: SweepSpec) -> None:
        """Keep `spec`, so that its trials can be built again without the file they came from."""
        text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text_atomic(self.spec, text)
        if spec.tracking.uri is not None and "@" in spec.tracking.uri:
            self.spec.chmod(0o600)  # it holds a password

    def load_spec(self) -> SweepSpec:
        """The sweep as it was run."""
        values = yaml.safe_load(self.spec.read_text(encoding="utf-8"))
        return SweepSpec(**values).with_source(str(self.spec))

    def save_record(self, record: dict[str, Any]) -> None:
        """Keep the tracking store and the parent run."""
        write_text_atomic(self.record, json.dumps(record, indent=2))

    def update_record(self, **more: Any) -> None:
        """Keep `more` beside what is known."""
        self.save_record({**self.load_record(), **more})

    def load_record(self) -> dict[str, Any]:
        """What `save_record` kept; empty if nothing was."""
        try:
            return dict(json.loads(self.record.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}


def sweeps_root() -> Path:
    """Folder of all sweeps of the working directory."""
    return (Path.cwd() / "mlruns" / "sweeps").resolve()


def new_folder(name: str, numbered: bool = False) -> SweepFolder:
    """Make a folder for a sweep called `name`.

    Args:
        name: of the sweep.
        numbered: whether a name that is taken gets a number.

    Raises:
        SweepError: the name is taken.
    """
    root = sweeps_root()
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not SweepFolder(path).spec.is_file():  # its process died before it began
                return SweepFolder(path)
            if not numbered:
                raise SweepError(
                    f"sweep {name}: {path} holds one already; go on with it by --resume, or start "
                    "another with --name NAME (--name auto: the next free number)"
                ) from None
            number += 1
        else:
            return SweepFolder(path)


def find_folder(name: str) -> SweepFolder:
    """The folder of the sweep of just this name, else the latest numbered one of it.

    Raises:
        SweepError: there is none.
    """
    exact = SweepFolder(sweeps_root() / name)
    return exact if exact.spec.is_file() else latest_folder(name)


def latest_folder(name: str) -> SweepFolder:
    """The folder of the latest sweep called `name`, numbered or not.

    Raises:
        SweepError: there is none.
    """
    root = sweeps_root()
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    found = {
        p: m
        for p in root.glob("*")
        if (m := pattern.fullmatch(p.name)) and (p / "sweep.yaml").is_file()
    }
    if not found:
        known = [p.name for p in root.glob("*")]
        cure = nearest(name, known) or "; `python -m sweeps.run FILE` makes one"
        raise SweepError(f"{name}: no such sweep in {root}{cure}")
    return SweepFolder(max(found, key=lambda p: int(found[p][1] or 1)))
