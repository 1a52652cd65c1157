"""The folder of a sweep, `mlruns/sweeps/<name>/`, and the rule by which names stay apart.

A sweep never goes into the folder of an earlier one: a name that the YAML gives gets a number
(`name-2`), a name asked for by the user must be free.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fsdet.errors import nearest
from fsdet.files import write_text_atomic
from sweeps.errors import SweepError
from sweeps.spec import SweepSpec


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
    def ray_log(self) -> Path:
        """What Ray has to say."""
        return self.path / "ray.log"

    @property
    def trials(self) -> Path:
        """One folder per trial."""
        return self.path / "trials"

    def save_spec(self, spec: SweepSpec) -> None:
        """Keep `spec`, so that its trials can be built again without the file they came from."""
        text = yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_text_atomic(self.spec, text)

    def load_spec(self) -> SweepSpec:
        """The sweep as it was run."""
        values = yaml.safe_load(self.spec.read_text(encoding="utf-8"))
        return SweepSpec(**values).with_source(str(self.spec))

    def save_record(self, record: dict[str, Any]) -> None:
        """Keep the tracking store and the parent run."""
        write_text_atomic(self.record, json.dumps(record, indent=2))

    def load_record(self) -> dict[str, Any]:
        """What `save_record` kept; empty if nothing was."""
        try:
            return dict(json.loads(self.record.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return {}


def sweeps_root() -> Path:
    """Folder of all sweeps of the working directory."""
    return (Path.cwd() / "mlruns" / "sweeps").resolve()


def new_folder(name: str, asked_for: bool) -> SweepFolder:
    """Make a folder for a sweep called `name`.

    Args:
        name: from the YAML or from the user.
        asked_for: by the user, so that it must not be changed.

    Raises:
        SweepError: `asked_for`, and the name is taken.
    """
    root = sweeps_root()
    number = 1
    while True:
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if asked_for:
                raise SweepError(
                    f"--name {name}: {path} holds that sweep already; choose another name or leave "
                    "out --name to have one numbered"
                ) from None
            number += 1
        else:
            return SweepFolder(path)


def find_folder(name: str) -> SweepFolder:
    """The folder of sweep `name`; of several numbered ones of that base name the latest.

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
