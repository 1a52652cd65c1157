"""Feeds the command lines what they were not made for: `make fuzz`; `--kind yaml --seed 7` repeats one case.

The rule is always the same: the command works, or ends with exit code 2 and lines of ours, within 5 seconds of CPU and
1 GB of memory, and writes nothing outside its working directory. Each case is a fork of this process, which
has imported everything, so that hundreds run in a minute.
"""

from __future__ import annotations

import argparse
import atexit
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from random import Random

import fuzz_cases
import fuzz_checkpoints
import fuzz_files
import fuzz_sweeps
import psutil
import torch
from drills import Drill

CPU_SECONDS = 5.0
"""Of a case; wall time would judge what else the machine does."""
WALL_SECONDS = 60.0
"""For a case that waits for ever."""
MEMORY = 1 << 30
"""Bytes that a case may add to those that its fork begins with."""
LONGEST_LINE = 2000
"""Characters of a line on the error stream."""
MOST_LINES = 25
MOST_MEMORY = 4 * MEMORY
"""Bytes after which a case gets no more: the machine is used by others too."""
START = ".start"
"""File in the working directory of a case: bytes that its fork began with, fewer than its parent holds."""


@dataclass(frozen=True)
class Case:
    """One input and the command that reads it."""

    name: str
    prepare: Callable[[], Callable[[], int]]
    """Writes files into the working directory; returns the command, whose result is the exit code."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended."""

    code: int | None
    """None if it had to be killed."""
    errors: str
    cpu: float
    memory: int
    outside: list[str]
    """Files outside the working directory that were written."""

    @property
    def faults(self) -> list[str]:
        """What is against the rule; empty if it was kept."""
        found = []
        lines = self.errors.splitlines()
        if self.code is None:
            found.append("did not end")
        elif self.code not in (0, 1, 2):
            found.append(f"exit code {self.code}")
        if "Traceback" in self.errors:
            found.append("traceback")
        if self.code == 2 and not any(line.startswith("error: ") for line in lines):
            found.append("no line of ours")
        if len(lines) > MOST_LINES or any(len(line) > LONGEST_LINE for line in lines):
            found.append("too much text")
        if self.cpu > CPU_SECONDS:
            found.append(f"{self.cpu:.1f} s of CPU")
        if self.memory > MEMORY:
            found.append(f"{self.memory / 1e9:.2f} GB")
        return found + [f"wrote {name}" for name in self.outside]


def run_case(case: Case) -> Outcome:
    """Run one case in a fork of this process."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        return run_in(Path(name), case)


def run_in(root: Path, case: Case) -> Outcome:
    """Run one case in a fork, with the working directory `work` in an empty folder `root`."""
    for folder in ("home", "tmp", "work"):
        (root / folder).mkdir()
    before = _outside(root)
    child = os.fork()
    if child == 0:
        _in_child(case, root)
    code, cpu, peak = _wait(child)
    memory = peak - int((root / "work" / START).read_text(encoding="ascii"))
    errors = (root / "work" / ".errors").read_text(encoding="utf-8", errors="replace")
    written = sorted(_outside(root) - before)
    return Outcome(code, errors, cpu, memory, written)


def _in_child(case: Case, root: Path) -> None:
    """Run the command; does not return."""
    code = 99
    os.chdir(root / "work")
    torch.set_num_threads(1)  # those of this process do not exist in a fork
    in_use = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (in_use + MOST_MEMORY,) * 2)
    Path(START).write_text(f"{_peak(resource.getrusage(resource.RUSAGE_SELF))}", encoding="ascii")
    for stream, name in ((1, os.devnull), (2, ".errors")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), stream)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace")
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace")
    os.environ.update(HOME=str(root / "home"), TMPDIR=str(root / "tmp"))
    tempfile.tempdir = None
    try:
        code = case.prepare()()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(child: int) -> tuple[int | None, float, int]:
    """Exit code, seconds of CPU and the most bytes held at once."""
    deadline = time.monotonic() + WALL_SECONDS
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, status, used = os.wait4(child, 0)
            break
        time.sleep(0.005)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    return code, used.ru_utime + used.ru_stime, _peak(used)


def _peak(used: resource.struct_rusage) -> int:
    """The most bytes that a process held at once."""
    return used.ru_maxrss * 1024


def _outside(root: Path) -> set[str]:
    """Everything below `root` but the working directory."""
    folders = (root, root / "home", root / "tmp")
    paths = (path for folder in folders for path in folder.iterdir())
    return {f"{path.relative_to(root)}" for path in paths if path.name != "work"}


def cases(kind: str, seeds: Iterable[int]) -> Iterable[Case]:
    """The cases of one kind."""
    for seed in seeds:
        if kind in MADE_KINDS:
            MADE_KINDS[kind][1]()  # here, not in each fork
        yield Case(f"{kind} {seed}", partial(prepared, kind, seed))


def prepared(kind: str, seed: int) -> Callable[[], int]:
    """The command of a case, whose files are then in the working directory."""
    chance = Random(seed)
    if kind in fuzz_cases.KINDS:
        return fuzz_cases.KINDS[kind](chance)
    make_case, made = MADE_KINDS[kind]
    return make_case(chance, made())


@cache
def made_run() -> Path:
    """The folder of a small training; made by a fork, since torch's threads do not survive one."""
    root = made_folder()
    outcome = run_in(root, Case("made", lambda: fuzz_files.make_run))
    if outcome.code != 0:
        raise RuntimeError(f"the training that is damaged could not be made: {outcome.errors}")
    return root / "work"


@cache
def made_sweep() -> Path:
    """The folder of a sweep over a trainer that only sleeps, made by Ray (half a minute)."""
    drill = Drill(made_folder(), epoch_seconds=0.01)
    code, printed = drill.run()
    if code != 0:
        raise RuntimeError(f"the sweep that is damaged could not be made: {printed}")
    return drill.root


def made_folder() -> Path:
    """A folder for all cases; removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="fuzz-made-"))
    atexit.register(shutil.rmtree, root)
    return root


MADE_KINDS = {
    "images": (fuzz_files.image_case, made_run),
    "checkpoints": (fuzz_checkpoints.checkpoint_case, made_run),
    "sweeps": (fuzz_sweeps.sweep_case, made_sweep),
}
"""Kinds that damage what a training or a sweep has left -> their cases, and what makes that."""
KINDS = (*fuzz_cases.KINDS, *MADE_KINDS)


def main() -> int:
    """Run until the time is over; prints what broke the rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--kind", choices=KINDS, help="one kind only")
    parser.add_argument("--seed", type=int, help="one case only, with all that it prints")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else KINDS
    if options.seed is not None:
        for case in (case for kind in kinds for case in cases(kind, [options.seed])):
            outcome = run_case(case)
            print(f"{case.name}: {outcome.faults or outcome.code}\n{outcome.errors}")
        return 0
    end, count, broken = time.monotonic() + 60 * options.minutes, 0, 0
    for seed in itertools.count():
        for case in (case for kind in kinds for case in cases(kind, [seed])):
            if time.monotonic() > end:
                print(f"{count} cases, {broken} against the rule")
                return int(broken > 0)
            outcome = run_case(case)
            count += 1
            if outcome.faults:
                broken += 1
                last = outcome.errors.strip().splitlines()[-1:]
                print(
                    f"{case.name}: {', '.join(outcome.faults)}: {''.join(last)[:300]}", flush=True
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
