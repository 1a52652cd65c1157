"""How well a real sweep uses the cores, from the start of its first trial to the end of its last one.

Two figures: the fraction of the time that a trial was in progress on each core, and the CPU time that the
workers got. Only the first is meaningful on a machine where other work runs.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import threading
import time
from collections.abc import Sequence

import psutil
from rich.console import Console

from sweeps.config import SweepSpec
from sweeps.config.check import prepare_data
from sweeps.config.file import load_spec
from sweeps.resources.machine import this_machine
from sweeps.session.display import PlainDisplay
from sweeps.session.session import Session
from sweeps.session.sweep import run_sweep
from sweeps.storage.lookup import new_folder
from sweeps.tracking import Tracker, tracking_uri
from sweeps.trial.messages import TrialEnd, TrialRequest


class Timed(PlainDisplay):
    """Notes when trials begin and when they pause or end."""

    def __init__(self, spec: SweepSpec) -> None:
        super().__init__(spec, Console(file=io.StringIO()))
        self.spans: list[tuple[float, float]] = []
        self._began: dict[int, float] = {}

    def on_start(self, request: TrialRequest) -> None:
        super().on_start(request)
        self._began[request.number] = time.monotonic()

    def on_end(self, end: TrialEnd) -> None:
        super().on_end(end)
        began = self._began.pop(end.number, None)
        if began is not None:  # otherwise it is pruned at the end of the sweep
            self.spans.append((began, time.monotonic()))


class Workers(threading.Thread):
    """Follows the processor time of all processes below this one; looks twice a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()
        self.seen: list[tuple[float, float]] = []
        """Time, and processor seconds of all workers until then."""

    def run(self) -> None:
        used: dict[int, float] = {}
        while not self.done.wait(0.5):
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        times = process.cpu_times()
                        used[process.pid] = times.user + times.system
                except psutil.Error:
                    continue
            self.seen.append((time.monotonic(), sum(used.values())))


def measure(file: str, overrides: Sequence[str]) -> None:
    """Run the sweep in `file` and print both figures."""
    spec, _ = load_spec(file, overrides)
    machine = this_machine(look_for_gpus=False)
    at_once = machine.capacity(spec.resources)
    prepare_data(spec)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        display = Timed(spec)
        tracker = Tracker(tracking_uri(spec.tracking), spec.tracking.experiment)
        workers = Workers()
        workers.start()
        run_sweep(spec, Session(new_folder(spec.name), machine, tracker), display)
        workers.done.set()
        tracker.close()
    tell(display.spans, workers.seen, at_once)


def tell(spans: list[tuple[float, float]], seen: list[tuple[float, float]], at_once: int) -> None:
    """Print the shares."""
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    full = sorted(span[1] for span in spans)[-at_once]
    used = [used for at, used in seen if begin <= at <= end]
    got = (used[-1] - used[0]) / (at_once * (end - begin))
    print(
        f" trials trained {len(spans)} times, {at_once} at once, {end - begin:.0f} s from first start to last end\n"
        f"  a trial was in progress on a core for {100 * share(spans, begin, end, at_once):.1f} % of the time, "
        f"{100 * share(spans, begin, full, at_once):.1f} % while there was one for each\n"
        f"  the workers got {100 * got:.1f} % of the processor time"
    )


def share(spans: list[tuple[float, float]], begin: float, end: float, at_once: int) -> float:
    """Part of the time until `end` that trials were in progress."""
    inside = sum(max(0.0, min(last, end) - first) for first, last in spans)
    return inside / (at_once * (end - begin))
