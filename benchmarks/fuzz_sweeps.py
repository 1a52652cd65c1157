"""The folder of a real sweep with one or two of its files damaged, in the hands of each command; see `fuzz.py`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import drill_sweep
from fuzz_files import damaged

import sweeps.report.write
import sweeps.rerun
from fsdet.checkpoint.content import load_checkpoint
from fsdet.checkpoint.lookup import find_checkpoint
from fsdet.command import run_command
from sweeps.best import main as best
from sweeps.config.file import load_spec
from sweeps.errors import SweepError
from sweeps.list import main as show_list
from sweeps.report.__main__ import main as report
from sweeps.run import folder_to_resume
from sweeps.session.resume import check_study, earlier_runs, recorded_reports
from sweeps.session.sweep import open_study
from sweeps.study.location import store_of
from sweeps.study.study import read_trials
from sweeps.sync import main as sync
from sweeps.tracking import Tracker, recorded_uri
from sweeps.trial.identity import mismatch, newest_checkpoint, settings_of

Command = Callable[[], int]
SWEEP = Path("mlruns/sweeps/drill")
NAMES = (
    *("sweep.yaml", "study.journal", "tracking.json", "best.json", "best.yaml", "trials.csv"),
    *("trials/0000/trial.json", "trials/0000/steps.jsonl", "trials/0000/evaluations.jsonl"),
    *("trials/0000/config.yaml", "trials/0000/stage1_epoch0005.pt", "trials/0000", "trials"),
    *("report.html", "report", ".lock", ".claim", "ray.log", "stage1_epoch0004.pt"),
)
"""Below the sweep's folder."""


def sweep_case(chance: Random, made: Path) -> Command:
    """A copy of the sweep in `made`, damaged, and one of the commands that read it."""
    shutil.copytree(made, ".", copy_function=linked, dirs_exist_ok=True)
    record = SWEEP / "tracking.json"  # it names the database of the original
    record.write_text(record.read_text().replace(f"{made}/", f"{Path.cwd()}/"))
    for _ in range(chance.choice((1, 1, 2))):
        damage(chance, SWEEP / chance.choice(NAMES))
    return COMMANDS[chance.choice(sorted(COMMANDS))]


def linked(source: str, target: str) -> None:
    """Copy a file, or link a checkpoint, which no command changes in place."""
    if not Path(target).exists():
        (os.link if source.endswith(".pt") else shutil.copy)(source, target)


def damage(chance: Random, path: Path) -> None:
    """Something odd in the place of a file or folder."""
    data = path.read_bytes() if path.is_file() else b""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.exists() or path.is_symlink():
        path.unlink()
    if not path.parent.is_dir():
        return
    match chance.randrange(9):
        case 0:
            path.mkdir()
        case 1:
            os.mkfifo(path)
        case 2:
            path.symlink_to(chance.choice((path.name, "nowhere", "/dev/zero", "..")))
        case 3:
            path.write_bytes(chance.choice(CONTENTS))
        case 4:
            other = SWEEP / chance.choice(NAMES)
            path.write_bytes(other.read_bytes() if other.is_file() else b"")
        case 5:
            path.write_bytes(data)
            path.chmod(0)
        case 6:
            lines = data.splitlines(keepends=True) or [b""]
            chance.shuffle(lines)
            path.write_bytes(b"".join(lines[: chance.randrange(len(lines) + 1)]))
        case _:
            path.write_bytes(damaged(chance, data))


CONTENTS = (
    *(b"", b"\n", b"null\n", b"[]\n", b"{}\n", b"3\n", b'"x"\n', b"\xff\xfe\0", b"\0" * 100_000),
    *(
        b"[" * 100_000 + b"\n",
        b'{"a":' * 100_000 + b"\n",
        b'{"step": "nan"}\n',
        b'{"step": 1e999}\n',
    ),
    *(b'{"run_dir": 3}', b'{"run_dir": "../../../../etc"}', b'{"run_dir": "\\u0000"}'),
    *(b'{"settings": [], "sweep": {}}', b'{"sweep_id": [], "uri": 3, "study": {}, "run_id": {}}'),
    *(b'{"uri": "sqlite:////proc/x/y.db", "study": "sqlite:///no/where.db", "sweep_id": "x"}',),
    *(b'{"op_code": 99, "worker_id": "x"}\n', b'{"op_code": 4, "study_id": 7, "trial_id": -1}\n'),
    b"9" * 5000 + b"\n",
)


def resume() -> int:
    """What a session and the workers of its trials read, without Ray."""
    spec, _ = load_spec("drill.yaml")
    folder = folder_to_resume(spec, spec.name)
    store = store_of(folder)
    store.repair()
    tracker = Tracker(
        recorded_uri(folder.load_record().get("uri"), spec.tracking, folder.name),
        spec.tracking.experiment,
    )
    try:
        check_study(store, folder, earlier_runs(tracker, folder))
        open_study(spec, store)
        for record in read_trials(store):
            run_dir = folder.trials_dir / record.folder
            config = spec.config(record.parameters, run_dir)
            mismatch(run_dir, settings_of(config))
            newest_checkpoint(config, lambda _: None)
            list(recorded_reports(run_dir, spec.objective))
    finally:
        tracker.close(5)
    return 0


def load() -> int:
    """What `--checkpoint drill` reads."""
    load_checkpoint(find_checkpoint(Path("drill")))
    return 0


def rerun() -> int:
    """With the trainer that made the sweep."""
    sweeps.rerun.default_train = lambda: drill_sweep.train  # in this fork only
    return sweeps.rerun.main(["drill", "0"])


COMMANDS: dict[str, Command] = {
    "best": lambda: best(["drill", "--all"]),
    "list": lambda: show_list([]),
    "load": lambda: run_command(load),
    "report": lambda: report(["drill"]),
    "rerun": rerun,
    "resume": lambda: run_command(resume, mistakes=(SweepError,)),
    "sync": lambda: sync(["drill"]),
}
