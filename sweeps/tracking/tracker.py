"""`Tracker`: writes the runs of one experiment."""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.states import Outcome
from sweeps.tracking.client import Dataset, DatasetInput
from sweeps.tracking.runs import OpenRun, cut
from sweeps.tracking.store import (
    StoredRun,
    open_experiment,
    run_with_tags,
    runs_of,
    sqlite_file,
)
from sweeps.tracking.view import View
from sweeps.tracking.write_queue import ParentMissingError, Write, WriteQueue
from sweeps.tracking.writer import NAME_TAG, build_writer
from sweeps.trial.messages import TrialReport

log = logging.getLogger(__name__)

SERVER_QUEUES = 8
"""Threads that write to a server: a slow one answers several requests at once. A file needs one."""
PATIENCE = 300.0
"""Seconds for which a store that does not answer is asked again at the end, unless told otherwise."""
PARENT_TAG = "mlflow.parentRunId"
NOTE_TAG = "mlflow.note.content"
"""Tag with the description of a run, in Markdown."""
HINTS = {
    "away": "the sweep continues; values are written as soon as it answers",
    "refused": "the sweep continues, but its log in MLflow will be incomplete",
}


class Tracker:
    """Writes each run in the order of the calls, from threads of its own.

    Every method except `close`, `flush` and `stored_runs` returns at once. A call of the store costs about the
    same for one value as for hundreds, so values are buffered for a second.

    Raises:
        SweepError: at construction, if the store cannot be opened.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self._client, self.experiment_id = open_experiment(uri, experiment)
        self._writer = build_writer(self._client, self.experiment_id, sqlite_file(uri))
        self._runs: dict[str, OpenRun] = {}
        self._known: set[str] = set()
        """Keys of the runs that are written, or queued to be."""
        self._warned: set[str] = set()
        self._lock = threading.Lock()
        count = SERVER_QUEUES if uri.startswith("http") else 1
        self._queues = [WriteQueue(uri, self._warn, self._writer.commit) for _ in range(count)]

    @property
    def public_uri(self) -> str:
        """The address of the store without secrets."""
        return without_password(self.uri)

    def stored_runs(self, sweep_id: str) -> dict[str, StoredRun]:
        """Tag `sweep.trial`, or the empty string for the parent -> run, of an earlier session.

        Raises:
            SweepError: the store does not answer.
        """
        try:
            return runs_of(self._client, self.experiment_id, sweep_id)
        except Exception as error:  # MLflow lets errors of its database and HTTP layers through
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise SweepError(
                f"tracking.uri: {self.public_uri}: cannot be searched for the runs of this sweep "
                f"({without_password(reason)}); repair the store, then run this again"
            ) from None

    def start(
        self,
        key: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, Any],
        parent: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Start a run, or continue one.

        Args:
            key: by which later calls refer to it.
            name: shown in the UI.
            parameters: of the run.
            tags: of the run.
            parent: key of the run that this one belongs to.
            run_id: of the run to continue.
        """
        texts = {name: str(value) for name, value in tags.items() if value is not None}
        texts[NAME_TAG] = name
        started, attempts = now(), count()

        def write() -> None:
            known = self._runs.get(key)
            if known is not None and not known.resumed:  # it paused in this session
                known.reopen(texts)
                return
            above = texts | self._parent_tag(parent)
            if run_id is None:
                run = self._create(above, started, again=next(attempts) > 0)
            else:
                run = OpenRun.resume(self._client, self._writer, run_id, above)
            self._runs[key] = run
            run.add_params(parameters)
            self._send_later(key, run)

        self._known.add(key)
        self._put(key, write)

    def _create(self, tags: dict[str, str], started: int, again: bool) -> OpenRun:
        # the answer to the first attempt may have been lost
        run_id = run_with_tags(self._client, self.experiment_id, tags) if again else None
        if run_id is None:
            run_id = self._writer.create(cut(tags), started)
        return OpenRun(self._client, self._writer, run_id)

    def _parent_tag(self, parent: str | None) -> dict[str, str]:
        if parent is None:
            return {}
        if parent not in self._runs:
            raise ParentMissingError(f"run {parent} is not written yet")
        return {PARENT_TAG: self._runs[parent].run_id}

    def adopt(self, key: str, run_id: str) -> None:
        """Let `key` refer to a run of an earlier session without changing it, unless it refers to one already."""

        def write() -> None:
            self._runs.setdefault(key, OpenRun(self._client, self._writer, run_id, resumed=True))

        self._known.add(key)
        self._put(key, write)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        self._put(key, lambda: self._writer.log(self._runs[key].run_id, tags=cut(tags)))

    def describe(self, key: str, markdown: str) -> None:
        """Set the description of a run."""
        self.tag(key, {NOTE_TAG: markdown})

    def link(self, key: str, other: str, text: str) -> None:
        """Add a link to another run to the description of a run; nothing if one of them was never begun.

        Args:
            key: of the run to describe.
            other: key of the run to link to.
            text: of the link.
        """

        def write() -> None:
            if other not in self._runs:
                raise ParentMissingError(f"run {other} is not written yet")
            run_id = self._runs[key].run_id
            self._writer.commit()
            line = f"- [{text}](#/experiments/{self.experiment_id}/runs/{self._runs[other].run_id})"
            note = self._client.get_run(run_id).data.tags.get(NOTE_TAG, "")
            if line not in note:
                self._client.set_tag(run_id, NOTE_TAG, f"{note}\n{line}".strip())

        if {key, other} <= self._known:
            self._put(key, write)

    def add_files(self, key: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Log files as artifacts of a run that may have ended; those that do not exist are left out.

        Args:
            key: of the run.
            files: on this machine.
            folder: in the artifacts; None for their root.
        """
        paths = list(files)

        def write() -> None:
            self._writer.commit()
            for path in filter(Path.is_file, paths):
                self._client.log_artifact(self._runs[key].run_id, str(path), folder)

        self._put(key, write)

    def add_dataset(self, key: str, name: str, digest: str, source: str) -> None:
        """Name the data of a run."""
        data = Dataset(name=name, digest=digest, source_type="local", source=source)
        inputs = [DatasetInput(data)]

        def write() -> None:
            self._writer.commit()
            self._client.log_inputs(self._runs[key].run_id, datasets=inputs)

        self._put(key, write)

    def add_metrics(self, key: str, metrics: Mapping[str, float], step: int) -> None:
        """Write metrics of a run that no report holds."""
        when = now()

        def write() -> None:
            self._runs[key].add_metrics(metrics, when, step)
            self._send_later(key, self._runs[key])

        self._put(key, write)

    def log(self, key: str, report: TrialReport) -> None:
        """Write the metrics of a report and every step since the last one; see `OpenRun.add_report`."""
        when = now()

        def write() -> None:
            self._runs[key].add_report(report, when)
            self._send_later(key, self._runs[key])

        self._put(key, write)

    def end(
        self,
        key: str,
        outcome: Outcome,
        files: Iterable[Path] = (),
        metrics: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> None:
        """Close a run with its state, the reason and the files that exist.

        Args:
            key: of the run.
            outcome: of the run.
            files: to be logged.
            metrics: at step 0.
            name: its new name; None keeps the old one.
        """
        when = now()
        texts = {"state": str(outcome.state), "reason": without_password(outcome.reason)}
        texts |= {} if name is None else {NAME_TAG: name}
        tags = cut({name: text for name, text in texts.items() if text})
        last = dict(metrics or {})

        def write() -> None:
            run = self._runs[key]
            run.add_metrics(last, when)
            last.clear()  # a failed write is tried again
            run.send(tags)
            run.close(outcome, files, when)

        self._put(key, write)

    def share(self, view: View) -> str:
        """Save a view of the experiment; returns the link to it, after the address of a server."""
        name, value = view.tag(now())
        self._put("", lambda: self._client.set_experiment_tag(self.experiment_id, name, value))
        return view.link(self.experiment_id)

    def run_id(self, key: str) -> str | None:
        """MLflow's id of a run; None until it is written."""
        run = self._runs.get(key)
        return None if run is None else run.run_id

    def flush(self, seconds: float = 30) -> None:
        """Wait until everything is written, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        for queue in self._queues:
            queue.flush(max(0.0, deadline - time.monotonic()))

    @contextmanager
    def paused(self, seconds: float = 5) -> Iterator[None]:
        """Begin no write within the context: credentials are then missing in the environment.

        Args:
            seconds: to wait for the writes that have begun.
        """
        deadline = time.monotonic() + seconds
        with ExitStack() as queues:
            for queue in self._queues:
                queues.enter_context(queue.paused(max(0.0, deadline - time.monotonic())))
            yield

    def close(self, seconds: float = PATIENCE) -> int:
        """Write everything, then stop; give up after `seconds`. Returns the number of writes that are missing."""
        deadline = time.monotonic() + seconds
        return sum(queue.close(deadline) for queue in self._queues)

    def _put(self, key: str, write: Write) -> None:
        """Queue a write; all those of a run have the same queue."""
        self._queues[zlib.crc32(key.encode()) % len(self._queues)].put(write)

    def _send_later(self, key: str, run: OpenRun) -> None:
        """Send the buffered values of a run; called in the thread of its queue."""
        self._queues[zlib.crc32(key.encode()) % len(self._queues)].put_later(key, run.send)

    def _warn(self, kind: str, text: str) -> None:
        """Warn once of each kind, whichever queue meets it."""
        with self._lock:
            if kind in self._warned:
                return
            self._warned.add(kind)
        log.warning("%s; %s", text, HINTS[kind])


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
