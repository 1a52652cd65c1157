"""`Tracker`: writes the runs of one experiment."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sweeps.errors import SweepError
from sweeps.secrets import without_password
from sweeps.states import Outcome
from sweeps.tracking.runs import OpenRun, to_tags
from sweeps.tracking.store import StoredRun, open_experiment, runs_of
from sweeps.tracking.write_queue import WriteQueue
from sweeps.trial.messages import TrialReport

DELAY = 1.0
"""Seconds for which values are buffered and then written together."""


class Tracker:
    """Writes runs in the order of the calls, from a thread of its own.

    Every method except `close`, `flush` and `stored_runs` returns at once. A call of the store costs about the
    same for one value as for hundreds, so values are buffered for `DELAY` seconds.

    Raises:
        SweepError: at construction, if the store cannot be opened.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self._client, self._experiment_id = open_experiment(uri, experiment)
        self._runs: dict[str, OpenRun] = {}
        self._unsent: list[OpenRun] = []
        self._queue = WriteQueue(uri, self._deliver)

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
            return runs_of(self._client, self._experiment_id, sweep_id)
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
        if run_id is None:
            begin = partial(self._create, key, name, texts, parent, now())
        else:
            begin = partial(self._resume, key, run_id, texts, parent)

        def write() -> None:
            known = self._runs.get(key)
            if known is not None and not known.resumed:  # it paused in this session
                known.reopen(texts)
                return
            run = begin()
            run.add_params(parameters)
            self._send_later(run)

        self._queue.put(write)

    def _create(
        self, key: str, name: str, tags: dict[str, str], parent: str | None, started: int
    ) -> OpenRun:
        above = self._parent_tag(parent)
        texts = {tag.key: tag.value for tag in to_tags(tags)} | above
        run = self._client.create_run(
            self._experiment_id, start_time=started, tags=texts, run_name=name
        )
        self._runs[key] = OpenRun(self._client, run.info.run_id)
        return self._runs[key]

    def _resume(self, key: str, run_id: str, tags: dict[str, str], parent: str | None) -> OpenRun:
        above = self._parent_tag(parent)
        self._runs[key] = OpenRun.resume(self._client, run_id, tags | above)
        return self._runs[key]

    def _parent_tag(self, parent: str | None) -> dict[str, str]:
        return {} if parent is None else {"mlflow.parentRunId": self._runs[parent].run_id}

    def adopt(self, key: str, run_id: str) -> None:
        """Let `key` refer to a run of an earlier session without changing it, unless it refers to one already."""

        def write() -> None:
            self._runs.setdefault(key, OpenRun(self._client, run_id, resumed=True))

        self._queue.put(write)

    def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Add tags to a run."""
        self._queue.put(lambda: self._client.log_batch(self._runs[key].run_id, tags=to_tags(tags)))

    def log(self, key: str, report: TrialReport) -> None:
        """Write the metrics of a report and every step since the last one; see `OpenRun.add_report`."""
        when = now()

        def write() -> None:
            self._runs[key].add_report(report, when)
            self._send_later(self._runs[key])

        self._queue.put(write)

    def end(
        self,
        key: str,
        outcome: Outcome,
        files: Iterable[Path] = (),
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Close a run with its state, the reason and the files that exist."""
        when = now()
        texts = {"state": str(outcome.state), "reason": without_password(outcome.reason)}
        tags = to_tags({name: text for name, text in texts.items() if text})
        last = dict(metrics or {})

        def write() -> None:
            run = self._runs[key]
            run.add_metrics(last, when)
            last.clear()  # a failed write is retried
            run.send(tags)
            run.close(outcome, files, when)

        self._queue.put(write)

    def add_files(self, key: str, files: Iterable[Path], folder: str | None = None) -> None:
        """Log files as artifacts of a run that may have ended; those that do not exist are left out.

        Args:
            key: of the run.
            files: on this machine.
            folder: in the artifacts; None for their root.
        """
        paths = list(files)

        def write() -> None:
            for path in filter(Path.is_file, paths):
                self._client.log_artifact(self._runs[key].run_id, str(path), folder)

        self._queue.put(write)

    def run_id(self, key: str) -> str | None:
        """MLflow's id of a run; None until it is written."""
        run = self._runs.get(key)
        return None if run is None else run.run_id

    def flush(self, seconds: float = 30) -> None:
        """Wait until everything is written, for at most `seconds`."""
        self._queue.flush(seconds)

    def close(self, seconds: float | None = None) -> None:
        """Write everything, then stop; give up after `seconds`, None for no limit."""
        self._queue.close(seconds)

    def _send_later(self, run: OpenRun) -> None:
        """Send the buffered values of a run with the next delivery."""
        if self._queue.deliver_at is None:
            self._queue.deliver_at = time.monotonic() + DELAY
        if run not in self._unsent:
            self._unsent.append(run)

    def _deliver(self) -> None:
        """Write all buffered values; discard those that cannot be written."""
        while self._unsent:
            run = self._unsent[0]
            try:
                self._queue.attempt(run.send)
            finally:
                run.drop()
                self._unsent.remove(run)
                self._queue.deliver_at = self._queue.deliver_at if self._unsent else None
        self._queue.deliver_at = None


def now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
