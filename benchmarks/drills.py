"""Drills: break a sweep in many ways, resume it, and check that nothing is lost, duplicated or left open.

`make drills` runs them all in a temporary folder and prints a table (about 20 minutes on 2 cores);
`python benchmarks/drills.py kill_driver` runs one. The checks read the three stores
themselves: the Optuna journal, the MLflow database and the folders of the trials.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, TypeVar

import optuna
import psutil
from drill_sweep import EXPLODES, HELD, STEPS, SWEEP, value_at
from mlflow import MlflowClient
from two_nodes import QUIET, SECOND, two_nodes

from fsdet.checkpoint.content import load_checkpoint
from fsdet.errors import CheckpointError
from sweeps.states import ENDED, State
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import TrialRecord, to_records
from sweeps.study.store import JournalStore
from sweeps.study.study import load_study

HERE = Path(__file__).resolve().parent
PATIENCE = 900.0
"""Seconds to wait for what must come. Nothing is judged by it: a busy machine takes ten times as long as a free one."""


def is_usable(path: Path) -> bool:
    """Whether a trial can resume from a checkpoint."""
    try:
        load_checkpoint(path)
    except CheckpointError:
        return False
    return True


Found = TypeVar("Found")


@dataclass
class Drill:
    """A sweep in a folder of its own, and the process that runs it."""

    root: Path
    text: str = SWEEP
    epoch_seconds: float = 0.5
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[str] | None = None
    command: ClassVar[Sequence[str]] = (sys.executable, "-m", "drill_sweep")

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / "drill.yaml").write_text(self.text, encoding="utf-8")

    @property
    def folder(self) -> SweepFolder:
        """Of the sweep."""
        return SweepFolder(self.root / "mlruns" / "sweeps" / "drill")

    @property
    def uri(self) -> str:
        """Of the tracking store."""
        return f"sqlite:///{self.root / 'mlruns' / 'mlflow.db'}"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a session; `--resume` unless it is the first."""
        more = ["--resume"] if self.folder.spec_file.is_file() and not arguments else []
        paths = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "DRILL_EPOCH_SECONDS": str(self.epoch_seconds),
            "DRILL_HOLD": str(self.barrier),
            **self.environment,
        }
        environment.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            [*self.command, "drill.yaml", *more, *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        return self.process

    def finish(self) -> tuple[int, str]:
        """Wait for the session's end; exit code and what it printed."""
        assert self.process is not None
        printed, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, printed

    def run(self, *arguments: str) -> tuple[int, str]:
        """A whole session."""
        self.start(*arguments)
        return self.finish()

    def kill(self) -> None:
        """SIGKILL to the session's driver."""
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    def resume(self) -> list[str]:
        """Run one more session to its end; everything that is wrong afterwards."""
        code, printed = self.run()
        return self.audit() + ([] if code == 0 else [f"resumed: {code}: {printed[-500:]}"])

    def wait_for(self, pattern: str) -> Path:
        """The first file of the sweep that matches `pattern`."""
        return self._wait(pattern, lambda: sorted(self.folder.path.glob(pattern)))[0]

    def wait_for_work(self) -> None:
        """Until a trial begins or goes on in this session, or the session ends."""
        assert self.process is not None
        process, before = self.process, self._beginnings()
        self._wait("trial", lambda: self._beginnings() != before or process.poll() is not None)

    def hold(self, where: Callable[[int], bool] = lambda _: True) -> tuple[Path, int]:
        """Let no trial begin its second epoch until `release`, and wait for one that stands there.

        It has reported its first epoch, was promoted, and stays as it is: what a drill does to it comes neither too
        early nor too late, however busy the machine is.

        Args:
            where: whether the process of this number will do.

        Returns:
            the log of its sessions, and the number of its process.
        """
        self.barrier.touch()

        def held() -> list[tuple[Path, int]]:
            texts = {path: path.read_text() for path in self.folder.trials_dir.glob(f"*/{HELD}")}
            found = [
                (path.parent / "sessions.log", int(text)) for path, text in texts.items() if text
            ]
            return [(path, pid) for path, pid in found if where(pid)]

        return self._wait("trial that waits behind its first epoch", held)[0]

    def release(self) -> None:
        """Let the trials go on."""
        self.barrier.unlink()

    @property
    def barrier(self) -> Path:
        """The file that holds the trials."""
        return self.root / "hold"

    def _wait(self, what: str, find: Callable[[], Found]) -> Found:
        """What `find` returns as soon as that is true."""
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while not (found := find()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TimeoutError(f"no {what} in {self.folder.path}")
            time.sleep(0.1)
        return found

    def _beginnings(self) -> int:
        logs = self.folder.trials_dir.glob("*/sessions.log")
        return sum(len(log.read_text().splitlines()) for log in logs)

    def study(self) -> optuna.Study:
        """As it stands on disk."""
        return load_study(JournalStore(self.folder.study_file))

    def audit(self, trials: int = 12) -> list[str]:
        """Everything that is wrong with a sweep that has come to its end; empty if nothing is."""
        records = to_records(self.study().get_trials(deepcopy=False), alive=False)
        return [
            *self._study_wrongs(trials),
            *self._run_wrongs(records),
            *self._file_wrongs(records),
        ]

    def _study_wrongs(self, trials: int) -> list[str]:
        wrongs = []
        found = self.study().trials
        if len(found) != trials:
            wrongs.append(f"study: {len(found)} trials instead of {trials}")
        for configuration, count in Counter(str(t.params) for t in found).items():
            if count > 1:
                wrongs.append(f"study: {configuration} was tried {count} times")
        for t in found:
            state, epochs = t.user_attrs.get("state"), sorted(t.intermediate_values)
            if not t.state.is_finished() or state not in ENDED:
                wrongs.append(f"study: trial {t.number} is {t.state.name}, {state}")
            if epochs != list(range(1, len(epochs) + 1)):
                wrongs.append(f"study: trial {t.number} has values of epochs {epochs}")
            for epoch, value in t.intermediate_values.items():
                if abs(value - value_at(t.params["lr"], epoch)) > 1e-9:
                    wrongs.append(f"study: trial {t.number} has a wrong value at epoch {epoch}")
            if state == State.COMPLETED and len(epochs) != 5:
                wrongs.append(f"study: trial {t.number} completed with {len(epochs)} epochs")
            exploding = t.params["lr"] >= EXPLODES and state != State.PRUNED
            if (state == State.INFEASIBLE) != exploding:
                wrongs.append(f"study: trial {t.number}, lr {t.params['lr']}, is {state}")
        return wrongs

    def _run_wrongs(self, records: list[TrialRecord]) -> list[str]:
        client, wrongs = MlflowClient(self.uri), []
        experiment = client.get_experiment_by_name("sweeps")
        runs = client.search_runs([experiment.experiment_id])
        names = Counter(run.data.tags.get("sweep.trial", "parent") for run in runs)
        expected = {"parent", *(str(t.number) for t in records)}
        if set(names) != expected or max(names.values()) > 1:
            wrongs.append(f"mlflow: runs {dict(names)}")
        states = {str(t.number): t.state for t in records}
        for run in runs:
            key = run.data.tags.get("sweep.trial", "parent")
            if run.info.status in ("RUNNING", "SCHEDULED"):
                wrongs.append(f"mlflow: run {key} is left {run.info.status}")
            if key != "parent" and run.data.tags["state"] != states.get(key):
                wrongs.append(
                    f"mlflow: run {key} is {run.data.tags['state']}, not {states.get(key)}"
                )
            if key != "parent":
                wrongs += self._metric_wrongs(client, run.info.run_id, key)
        return wrongs

    def _metric_wrongs(self, client: MlflowClient, run_id: str, key: str) -> list[str]:
        wrongs = []
        steps = [m.step for m in client.get_metric_history(run_id, "grad/norm")]
        if sorted(steps) != list(range(1, len(steps) + 1)):
            wrongs.append(f"mlflow: run {key} has the steps {sorted(steps)}")
        trial = self.study().trials[int(key)]
        values = [m.step // STEPS for m in client.get_metric_history(run_id, "val/nAP50")]
        if sorted(values) != sorted(trial.intermediate_values):
            wrongs.append(
                f"mlflow: run {key} has values of epochs {sorted(values)}, the study of "
                f"{sorted(trial.intermediate_values)}"
            )
        return wrongs

    def _file_wrongs(self, records: list[TrialRecord]) -> list[str]:
        wrongs = []
        for trial in records:
            folder = self.folder.trials_dir / f"{trial.number:04d}"
            broken = [p.name for p in folder.glob("*.pt") if not is_usable(p)]
            if broken:
                wrongs.append(f"files: trial {trial.number} has damaged {broken}")
            if trial.state is State.COMPLETED and not (folder / "stage1_epoch0005.pt").exists():
                wrongs.append(f"files: trial {trial.number} lacks its last checkpoint")
        return wrongs

    def repeated(self) -> tuple[int, int]:
        """Times that a trial began again from nothing, and that it went on behind an epoch, promotions included."""
        anew = on = 0
        for log in self.folder.trials_dir.glob("*/sessions.log"):
            for line in log.read_text().splitlines()[1:]:
                if line.endswith("epoch 0"):
                    anew += 1
                else:
                    on += 1
        return anew, on


def kill_driver(
    root: Path, kills: int = 20, seed: int = 0, epoch_seconds: float = 4.0
) -> tuple[list[str], str]:
    """SIGKILL to the driver at random moments of one sweep, a third of them before a trial runs."""
    drill = Drill(root, epoch_seconds=epoch_seconds)
    chance, done = random.Random(seed), 0
    while done < kills:
        process = drill.start()
        if chance.random() < 1 / 3:
            time.sleep(chance.uniform(1, 8))
        else:
            drill.wait_for_work()
            time.sleep(chance.uniform(0, 5))
        if process.poll() is not None:
            break
        drill.kill()
        done += 1
    code, printed = drill.finish() if process.poll() is not None and done < kills else drill.run()
    anew, on = drill.repeated()
    wrongs = drill.audit()
    if code != 0:
        wrongs.append(f"the last session ended with {code}: {printed[-500:]}")
    return (
        wrongs,
        f"{done} kills; trials went on {on} times, promotions included, began anew {anew} times",
    )


def signalled(root: Path, number: int, expected: int, most: float = 10.0) -> tuple[list[str], str]:
    """One signal in the middle of the sweep; the session must end within `most` seconds and be resumable."""
    drill = Drill(root)
    process = drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    drill.hold()
    began = time.monotonic()
    process.send_signal(number)
    code, printed = drill.finish()
    seconds = time.monotonic() - began
    drill.release()
    wrongs = [] if code == expected else [f"exit code {code}, not {expected}: {printed[-800:]}"]
    if seconds > most:
        wrongs.append(f"took {seconds:.1f} s to stop")
    states = Counter(t.state for t in to_records(drill.study().trials, alive=False))
    if State.RUNNING in states or not states[State.INTERRUPTED]:
        wrongs.append(f"states after the stop: {dict(states)}")
    client = MlflowClient(drill.uri)
    runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    wrongs += [f"{r.info.run_name} is left RUNNING" for r in runs if r.info.status == "RUNNING"]
    if "--resume" not in printed:
        wrongs.append("did not say how to go on")
    wrongs += drill.resume()
    return wrongs, f"stopped in {seconds:.1f} s"


def ctrl_c(root: Path) -> tuple[list[str], str]:
    """One Ctrl-C."""
    return signalled(root, signal.SIGINT, 130)


def sigterm(root: Path, most: float = 10.0) -> tuple[list[str], str]:
    """One SIGTERM."""
    return signalled(root, signal.SIGTERM, 143, most)


def second_ctrl_c(root: Path) -> tuple[list[str], str]:
    """Two in a row leave at once."""
    drill = Drill(root)
    process = drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    process.send_signal(signal.SIGINT)
    time.sleep(0.4)  # two at once count as one
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code = process.wait(60)
    seconds = time.monotonic() - began
    process.communicate()  # Ray's processes hold the pipe for some seconds
    wrongs = [] if code == 130 and seconds < 2 else [f"code {code} after {seconds:.1f} s"]
    wrongs += drill.resume()
    return wrongs, f"left in {seconds:.1f} s"


def time_budget(root: Path) -> tuple[list[str], str]:
    """The time is over in the middle: exit code 0, or 1 if all trials are paused, and the reason; more time goes on."""
    drill = Drill(root, SWEEP + "budget: {hours: 0.006}\n", epoch_seconds=2.0)
    code, printed = drill.run()
    states = {t.state for t in to_records(drill.study().trials, alive=False)}
    expected = 0 if State.COMPLETED in states else 1
    told = code == expected and "its time is over" in printed
    wrongs = [] if told else [f"{code}: {printed[-800:]}"]
    code, printed = drill.run("--resume", "--set", "budget.hours=1")
    wrongs += drill.audit() + ([] if code == 0 else [f"resumed: {code}: {printed[-500:]}"])
    return wrongs, ""


def kill_worker(root: Path) -> tuple[list[str], str]:
    """SIGKILL to a worker: its trial goes on from its checkpoint."""
    drill = Drill(root)
    drill.start()
    log, pid = drill.hold()
    before = lines_of(log)
    os.kill(pid, signal.SIGKILL)
    drill.release()
    code, printed = drill.finish()
    after = lines_of(log)[len(before) :]
    wrongs = drill.audit() + ([] if code == 0 else [f"{code}: {printed[-500:]}"])
    if not after or not after[0].endswith("epoch 1"):
        wrongs.append(f"the killed worker's trial: {before}, then {after}")
    return wrongs, "".join(after[:1]).partition(" ")[2]


def ray_killed(root: Path, most: float = 20.0) -> tuple[list[str], str]:
    """SIGKILL to Ray's gcs_server: one line with --resume, code 1, within `most` seconds; Ray would wait for 60."""
    drill = Drill(root)
    process = drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    for server in psutil.Process(process.pid).children():
        if server.name() == "gcs_server":
            server.kill()
    began = time.monotonic()
    code = process.wait(PATIENCE)
    seconds = time.monotonic() - began
    printed, _ = process.communicate()
    told = "gcs_server, a server of Ray, was killed" in printed and "--resume" in printed
    clean = "Failed to connect" not in printed and "Traceback" not in printed
    right = code == 1 and told and clean and seconds < most
    wrongs = [] if right else [f"code {code} after {seconds:.1f} s: {printed[-500:]}"]
    return wrongs + drill.resume(), f"left in {seconds:.1f} s"


def lines_of(log: Path) -> list[str]:
    """One for each time that a worker began with a trial."""
    return log.read_text(encoding="utf-8").splitlines()


def damaged_checkpoint(root: Path) -> tuple[list[str], str]:
    """The newest checkpoint is cut off: the one before serves."""
    drill = Drill(root, epoch_seconds=2.0)
    drill.start()
    newest = drill.wait_for("trials/0000/stage1_epoch0003.pt")
    drill.kill()
    sessions = newest.parent / "sessions.log"
    begun = lines_of(sessions)
    worker = int(begun[-1].split()[0])
    psutil.wait_procs([psutil.Process(worker)] if psutil.pid_exists(worker) else [], PATIENCE)
    newest = max(newest.parent.glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:50_000])
    code, printed = drill.run()
    after = lines_of(sessions)[len(begun) :]
    before = int(newest.stem[-4:]) - 1
    wrongs = drill.audit() + ([] if code == 0 else [f"{code}: {printed[-500:]}"])
    if not after or not after[0].endswith(f"epoch {before}"):
        wrongs.append(f"trial 0: {begun}, then {after}")
    return wrongs, "".join(after[:1]).partition(" ")[2]


def tracking_lost(root: Path) -> tuple[list[str], str]:
    """The MLflow database is deleted while the sweep runs; a resume writes it anew."""
    drill = Drill(root)
    drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    (root / "mlruns" / "mlflow.db").unlink()
    code, printed = drill.finish()
    told = printed.count("could not write")
    wrongs = [] if code == 0 and told == 1 else [f"{code}, told {told} times: {printed[-900:]}"]
    wrongs += drill.resume()
    return wrongs, "told once, restored by --resume"


def study_lost(root: Path) -> tuple[list[str], str]:
    """The study is deleted while the sweep runs: a clean stop; it is written back and goes on."""
    drill = Drill(root)
    drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    drill.folder.study_file.unlink()
    code, printed = drill.finish()
    wrongs = (
        [] if code == 5 and "study cannot be written" in printed else [f"{code}: {printed[-900:]}"]
    )
    client = MlflowClient(drill.uri)
    runs = client.search_runs([client.get_experiment_by_name("sweeps").experiment_id])
    wrongs += [f"{r.info.run_name} is left RUNNING" for r in runs if r.info.status == "RUNNING"]
    wrongs += drill.resume()
    return wrongs, f"stopped, {len(runs)} runs closed"


def study_emptied(root: Path) -> tuple[list[str], str]:
    """The driver is killed and the study emptied: refused, nothing begins; with the study back it goes on."""
    drill = Drill(root)
    drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    drill.kill()
    time.sleep(5)  # its workers live on for some seconds
    study, before = drill.folder.study_file.read_bytes(), drill._beginnings()
    drill.folder.study_file.write_bytes(b"")
    code, printed = drill.run()
    wrongs = [] if code == 2 and "has lost trials" in printed else [f"{code}: {printed[-900:]}"]
    if drill._beginnings() != before:
        wrongs.append("a trial began in spite of that")
    drill.folder.study_file.write_bytes(study)
    wrongs += drill.resume()
    return wrongs, "refused, restored, gone on with"


def record_emptied(root: Path) -> tuple[list[str], str]:
    """The driver is killed and `tracking.json` emptied: a resume finds the open runs by their tags."""
    drill = Drill(root)
    drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    drill.kill()
    drill.folder.record_file.write_text("")
    wrongs = drill.resume()
    return wrongs, ""


def folders_swapped(root: Path) -> tuple[list[str], str]:
    """The driver is killed and the folders of two trials change places: each begins anew or has ended."""
    drill = Drill(root, epoch_seconds=2.0)
    drill.start()
    drill.wait_for("trials/0000/stage1_epoch0002.pt")
    drill.kill()
    time.sleep(8)  # its workers live on for some seconds
    first, second, aside = (drill.folder.trials_dir / name for name in ("0000", "0001", "x"))
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    code, printed = drill.run()
    told = printed.count("the files are moved to earlier-1")
    wrongs = drill.audit() + ([] if code == 0 else [f"resumed: {code}: {printed[-500:]}"])
    if not told:
        wrongs.append(f"nothing was said of it: {printed[-900:]}")
    return wrongs, f"{told} folders were set aside"


def disk_full(root: Path) -> tuple[list[str], str]:
    """The disk fills up while the sweep runs: a clean stop; with room again it goes on."""
    with small_disk(root, "size=64m") as mounted:
        if not mounted:
            return [], NO_DISK
        drill = Drill(root)
        drill.start()
        drill.wait_for("trials/0002/stage1_epoch0001.pt")
        filler = fill(root)
        code, printed = drill.finish()
        wrongs = [] if code in (4, 5) and "full" in printed else [f"{code}: {printed[-900:]}"]
        filler.unlink()
        states = Counter(str(t.state) for t in to_records(drill.study().trials, alive=False))
        return wrongs + drill.resume(), f"stopped with {dict(states)}"


NO_DISK = "not run: this user may not mount a small disk"


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[bool]:
    """A disk of its own at `folder`, in memory; yields whether this user may mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=False)


def fill(folder: Path) -> Path:
    """Fill the disk of `folder` by a file, which is returned."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return filler


def no_home_and_full_tmpdir(root: Path) -> tuple[list[str], str]:
    """There is no HOME, and TMPDIR is full: the sweep does without both."""
    with small_disk(root / "tmp", "size=64k") as mounted:
        if not mounted:
            return [], NO_DISK
        fill(root / "tmp")
        drill = Drill(root, environment={"HOME": "/nowhere", "TMPDIR": f"{root / 'tmp'}"})
        code, printed = drill.run()
    return drill.audit() + ([] if code == 0 else [f"{code}: {printed[-800:]}"]), ""


def ray_disk_full(root: Path) -> tuple[list[str], str]:
    """The disk of Ray's files fills up: the sweep goes on, or stops and resumes when there is room again."""
    place = Path(tempfile.mkdtemp(prefix="r-"))  # a short path, for Ray's sockets
    with small_disk(place, "size=300m") as mounted:
        if not mounted:
            return [], NO_DISK
        drill = Drill(root, environment={"RAY_TMPDIR": f"{place}"})
        drill.start()
        drill.wait_for("trials/0002/stage1_epoch0001.pt")
        filler = fill(place)
        code, printed = drill.finish()
        stopped = code == 1 and "--resume" in printed
        wrongs = [] if code == 0 or stopped else [f"{code}: {printed[-900:]}"]
        if "Traceback" in printed:
            wrongs.append(f"a traceback: {printed[-900:]}")
        filler.unlink()
        return wrongs + (drill.audit() if code == 0 else drill.resume()), f"exit code {code}"


def no_room_for_ray(root: Path) -> tuple[list[str], str]:
    """No bytes or inodes for Ray's files, or a read-only disk: one line with the cure, code 2, nothing begins."""
    wrongs = []
    for options in ("size=1m", "size=300m,nr_inodes=4", "size=300m,ro"):
        with small_disk(root / "ray", options) as mounted:
            if not mounted:
                return [], NO_DISK
            drill = Drill(root, environment={"RAY_TMPDIR": f"{root / 'ray'}"})
            code, printed = drill.run()
        errors = [line for line in printed.splitlines() if line.startswith("error: ")]
        if code != 2 or len(errors) != 1 or "set RAY_TMPDIR" not in printed:
            wrongs.append(f"{options}: {code}: {printed[-500:]}")
        if (root / "mlruns").exists():
            wrongs.append(f"{options}: something began")
    return wrongs, "refused"


def tracking_locked(root: Path) -> tuple[list[str], str]:
    """Another process holds the MLflow database for 15 s: the sweep goes on and catches up."""
    drill = Drill(root)
    drill.start()
    drill.wait_for("trials/0002/stage1_epoch0001.pt")
    with contextlib.closing(sqlite3.connect(root / "mlruns" / "mlflow.db")) as database:
        database.execute("begin exclusive")
        time.sleep(15)
        database.rollback()
    code, printed = drill.finish()
    wrongs = drill.audit() + ([] if code == 0 else [f"{code}: {printed[-500:]}"])
    return wrongs, "told" if "could not write" in printed else "not even told"


def two_at_once(root: Path) -> tuple[list[str], str]:
    """Two sweeps on one machine and one tracking store do not disturb each other."""
    drills = [Drill(root / name) for name in "ab"]
    uri = f"sqlite:///{root / 'shared.db'}"
    for drill in drills:
        drill.text = drill.text.replace("trials: 12", "trials: 5")
        drill.text += f"tracking: {{uri: '{uri}', experiment: {drill.root.name}}}\n"
        drill.__post_init__()
        drill.start()
    wrongs = []
    for drill in drills:
        code, printed = drill.finish()
        wrongs += [] if code == 0 and "could not" not in printed else [f"{code}: {printed[-500:]}"]
        wrongs += drill._study_wrongs(5)
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(drill.root.name)
        runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
        open_ = [r.info.run_name for r in runs if r.info.status == "RUNNING"]
        if len(runs) != 6 or open_:
            wrongs.append(f"{len(runs)} runs, open {open_}")
    return wrongs, ""


def node_lost(root: Path) -> tuple[list[str], str]:
    """One node of two is lost with its trial, which goes on from its checkpoint on the other."""
    with two_nodes() as cluster:
        drill = Drill(root, environment=QUIET)
        drill.start("--address", cluster.address)
        log, _ = drill.hold(
            lambda pid: pid in {process.pid for process in cluster.processes_of(SECOND)}
        )
        before = lines_of(log)
        cluster.kill(SECOND)
        drill.release()
        code, printed = drill.finish()
    after = lines_of(log)[len(before) :]
    wrongs = drill.audit() + ([] if code == 0 else [f"{code}: {printed[-800:]}"])
    wrongs += lost_trial_wrongs(before, after)
    return wrongs, "".join(after[:1]).partition(" ")[2]


def lost_trial_wrongs(before: list[str], after: list[str]) -> list[str]:
    """What is wrong with a trial whose node was lost behind its first epoch.

    Args:
        before: lines of its `sessions.log` when the node was lost.
        after: lines that came later.
    """
    if after and after[0].endswith("epoch 1"):
        return []
    return [f"the lost trial: {before}, then {after}"]


DRILLS: dict[str, Callable[[Path], tuple[list[str], str]]] = {
    f.__name__: f
    for f in (
        ctrl_c,
        sigterm,
        second_ctrl_c,
        time_budget,
        kill_worker,
        ray_killed,
        damaged_checkpoint,
        tracking_lost,
        study_lost,
        study_emptied,
        record_emptied,
        folders_swapped,
        disk_full,
        ray_disk_full,
        no_room_for_ray,
        no_home_and_full_tmpdir,
        tracking_locked,
        two_at_once,
        node_lost,
        kill_driver,
    )
}


def main(names: list[str]) -> int:
    """Run the drills called `names`, or all; returns the number of those that went wrong."""
    failed = 0
    with tempfile.TemporaryDirectory(prefix="drills-", ignore_cleanup_errors=True) as root:
        for name in names or DRILLS:
            began = time.monotonic()
            wrongs, note = DRILLS[name](Path(root) / name)
            failed += bool(wrongs)
            verdict = "WRONG" if wrongs else "nothing lost"
            print(f"{name:<20} {time.monotonic() - began:5.0f} s  {verdict:<13} {note}", flush=True)
            for wrong in wrongs:
                print(f"    {wrong}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
