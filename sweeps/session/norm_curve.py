"""The gradient norm of a trial as a short row of bars, and how it is read while the trial trains."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from fsdet.files import open_regular
from fsdet.report import STEPS_FILE

NORM = "grad/norm"
BARS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "×"
WIDTH = 8
"""Bars of a curve."""
LEAST_SPAN = 2.0
"""Powers of ten that the bars span at least, so that small changes look small."""
LEAST = 1e-12
"""Smaller norms are drawn like this one."""
MOST_UNREAD = 1 << 20
"""Bytes of a file that are read at once; older steps are skipped."""


class NormCurve:
    """The largest gradient norm in each of at most `WIDTH` equal parts of a run so far.

    A part is one step at first; whenever there are too many, two become one. Adding a step twice changes nothing.
    """

    def __init__(self) -> None:
        self._size = 1
        self._parts: dict[int, float] = {}
        self._adding = threading.Lock()
        """The display reads steps from files while the driver gets reports."""
        self.step = 0
        """The latest step."""

    def add(self, step: int, norm: float) -> None:
        """Add the norm of one step, counted from 1; inf and NaN count as infinite."""
        with self._adding:
            self.step = max(self.step, step)
            while (self.step - 1) // self._size >= WIDTH:
                self._size *= 2
                halves, self._parts = self._parts, {}
                for part, largest in halves.items():
                    self._raise(part // 2, largest)
            self._raise((step - 1) // self._size, norm if math.isfinite(norm) else math.inf)

    def _raise(self, part: int, norm: float) -> None:
        self._parts[part] = max(norm, self._parts.get(part, norm))

    def add_history(self, history: Mapping[str, np.ndarray]) -> None:
        """Add the steps of a report."""
        if "step" in history and NORM in history:
            for step, norm in zip(history["step"], history[NORM], strict=True):
                self.add(int(step), float(norm))

    @property
    def peak(self) -> float | None:
        """The largest finite norm; None before the first."""
        return max((n for n in list(self._parts.values()) if n < math.inf), default=None)

    def __str__(self) -> str:
        """One bar for each part, on a logarithmic scale; `×` where a norm was not finite."""
        logs = [math.log10(max(norm, LEAST)) for _, norm in sorted(self._parts.items())]
        finite = [height for height in logs if height < math.inf]
        low = min(finite, default=0.0)
        span = max(LEAST_SPAN, max(finite, default=0.0) - low)
        return "".join(
            NOT_FINITE if math.isinf(height) else BARS[round((height - low) / span * 7)]
            for height in logs
        )


class StepTail:
    """Follows the `steps.jsonl` of a running trial; there is nothing to read where its folder is on another machine.

    Args:
        run_dir: folder of the trial.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / STEPS_FILE
        self._offset = 0

    def read(self) -> Iterator[tuple[int, float]]:
        """Step and gradient norm of each line that was completed since the last call."""
        for line in self._new_lines():
            try:
                values = json.loads(line)
                yield int(values["step"]), float(values[NORM])
            except (ValueError, KeyError, TypeError):
                continue  # the rest of a line whose begin was skipped

    def _new_lines(self) -> list[bytes]:
        try:
            with open_regular(self._path) as file:
                size = file.seek(0, 2)
                if size < self._offset:  # a resumed trial drops the steps that it repeats
                    self._offset = 0
                self._offset = file.seek(max(self._offset, size - MOST_UNREAD))
                text = file.read()
        except OSError:
            return []
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.splitlines()
