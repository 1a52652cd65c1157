"""Tables of recorded learning curves, as problems for search methods.

A problem is a unit cube of settings and a `Curve` for each point of it. Two kinds exist: `Nearest` returns the curve
of the nearest recorded configuration, `Surrogate` that of a Gaussian process fitted to all of them.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

EPOCHS = 16
"""Every training has as many epochs; a table without values for one of them has NaN there."""
ALL_PRICE, FEW_PRICE = 0.12, 0.025
"""Price of an evaluation over all and over few episodes, in training times; measured on the detector's table."""
TASKSET_POINTS = 50
LOG_SETTINGS = 8
"""Settings of a TaskSet configuration."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """What a training of one configuration would measure."""

    every: Array
    """(EPOCHS,) value after each epoch over all episodes, more is better."""
    few: Array
    """(EPOCHS,) the same over few episodes."""
    quality: float
    """How good the trained model really is: measured on other data."""
    explodes: float = np.inf
    """Epochs until it explodes; infinite if it does not."""

    def train(self, epoch: int, stops: bool) -> None:
        """Nothing: it is recorded."""


class Problem(Protocol):
    """What a search method searches."""

    name: str
    baselines: dict[str, Array]
    """Name -> point."""

    @property
    def dimensions(self) -> int:
        """Number of settings."""

    def curve(self, point: Array) -> Curve:
        """The curve at a point of the unit cube."""


class Known(Problem, Protocol):
    """A problem of which it is known how good random configurations are."""

    def qualities(self) -> Array:
        """Quality of random configurations, best first."""


def quality_of(problem: Known, share: float) -> float:
    """Quality that this share of random configurations reaches."""
    values = problem.qualities()
    return float(values[max(0, round(share * len(values)) - 1)])


@dataclass
class Nearest:
    """The recorded configuration nearest to a point."""

    name: str
    points: Array
    """(rows, dimensions)."""
    every: Array
    """(rows, EPOCHS)."""
    few: Array
    quality: Array
    """(rows,)."""
    explodes: Array
    """(rows,)."""
    baselines: dict[str, Array] = field(default_factory=dict)

    @property
    def dimensions(self) -> int:
        """Number of settings."""
        return self.points.shape[1]

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points)

    def curve(self, point: Array) -> Curve:
        """The curve of the nearest row."""
        row = int(self._tree.query(point)[1])
        return Curve(self.every[row], self.few[row], self.quality[row], self.explodes[row])

    def qualities(self) -> Array:
        """Quality of all rows."""
        return np.sort(self.quality)[::-1]


class Surrogate:
    """A Gaussian process over all rows of a table: smooth, and between the rows no steps."""

    def __init__(self, table: Nearest, draws: int = 4096) -> None:
        from scipy.stats import qmc

        self.name = f"{table.name}, fitted"
        self.baselines = table.baselines
        exploded = np.isfinite(table.explodes)
        self._epochs = np.where(np.isfinite(table.every[~exploded]).all(0))[0]
        targets = [table.every[:, self._epochs], table.few[:, self._epochs], table.quality[:, None]]
        self._fit = _Process(table.points[~exploded], np.hstack(targets)[~exploded])
        self._exploded = _Process(table.points, exploded[:, None].astype(float))
        self._table = table
        sample = qmc.Sobol(table.dimensions, seed=1).random(draws)
        self._sample = np.sort([self.curve(point).quality for point in sample])[::-1]

    @property
    def dimensions(self) -> int:
        """Number of settings."""
        return self._table.dimensions

    def curve(self, point: Array) -> Curve:
        """The curve that the process expects; whether it explodes is decided by a second one."""
        values = self._fit.mean(point)
        count = len(self._epochs)
        every, few = np.full(EPOCHS, np.nan), np.full(EPOCHS, np.nan)
        every[self._epochs], few[self._epochs] = values[:count], values[count : 2 * count]
        if self._exploded.mean(point)[0] < 0.5:
            return Curve(every, few, values[-1])
        bad = np.where(np.isfinite(self._table.explodes))[0]
        row = bad[np.argmin(((self._table.points[bad] - point) ** 2).sum(1))]
        t = self._table
        return Curve(t.every[row], t.few[row], t.quality[row], t.explodes[row])

    def qualities(self) -> Array:
        """Quality of random points."""
        return self._sample


class _Process:
    """Posterior mean of Gaussian processes that share a kernel, which is fitted to the last target."""

    def __init__(self, points: Array, targets: Array) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

        self._shift, self._scale = targets.mean(0), targets.std(0) + 1e-12
        scaled = (targets - self._shift) / self._scale
        kernel = ConstantKernel() * RBF(np.full(points.shape[1], 0.5)) + WhiteKernel(0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = GaussianProcessRegressor(kernel, random_state=0).fit(points, scaled[:, -1])
        signal, white = fitted.kernel_.k1, fitted.kernel_.k2
        self._points = points / signal.k2.length_scale
        self._length, self._amplitude = signal.k2.length_scale, signal.k1.constant_value
        noisy = self._between(self._points) + white.noise_level * np.eye(len(points))
        self._weights = np.linalg.solve(noisy, scaled)

    def _between(self, scaled: Array) -> Array:
        squares = (
            (scaled**2).sum(-1)[..., None] + (self._points**2).sum(1) - 2 * scaled @ self._points.T
        )
        return self._amplitude * np.exp(-0.5 * np.maximum(squares, 0))

    def mean(self, point: Array) -> Array:
        """(targets,) at one point."""
        return self._between(point / self._length) @ self._weights * self._scale + self._shift


def load_taskset(path: Path, epochs: int = EPOCHS) -> Nearest:
    """A task of TaskSet: loss on validation data, with its sign changed; quality is that on test data.

    A curve explodes at its first value that is not finite, which counts from there on as the worst of the table.
    """
    data = np.load(path)
    settings = data["settings"].copy()
    settings[:, 1:3] = 1 - settings[:, 1:3]
    logs = np.log10(np.maximum(settings, 1e-12))
    low, high = logs.min(0), logs.max(0)
    valid, test = (data[key].astype(float) for key in ("valid", "test"))
    bad = ~np.isfinite(valid)
    first = np.where(bad.any(1), bad.argmax(1), np.inf)
    at = np.round(np.arange(1, epochs + 1) * TASKSET_POINTS / epochs).astype(int)
    worst = np.nanmax(np.where(np.isfinite(valid), valid, np.nan), axis=None)
    every = -np.where(np.isfinite(valid), valid, worst)[:, at]
    quality = -np.where(np.isfinite(test), test, worst)[:, -1]
    exploded = np.isfinite(first)
    every[exploded] = np.where(at >= first[exploded, None], -worst, every[exploded])
    quality[exploded] = -worst
    return Nearest(
        name=path.stem,
        points=(logs - low) / np.maximum(high - low, 1e-12),
        every=every,
        few=every,
        quality=quality,
        explodes=first * epochs / TASKSET_POINTS,
    )


def load_recorded(path: Path) -> Nearest:
    """A table of `benchmarks/record_table.py`: the first run of each configuration, further seeds averaged.

    Quality is the mean AP50 at the end over all seeds of a configuration, on both splits.
    """
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    header, rows = lines[0], lines[1:]
    configurations = header["configurations"]
    first_seed = header["plan"]["first_seed"]
    first = [row for row in rows if row["seed"] == first_seed]
    keys = list(configurations[0])
    logs = np.log([[configurations[row["configuration"]][key] for key in keys] for row in first])
    low, high = space_ends(keys)
    points = (logs - low) / (high - low)
    steps = header["settings"]["n_episodes"]
    every, few = np.full((len(first), EPOCHS), np.nan), np.full((len(first), EPOCHS), np.nan)
    ends: dict[int, list[float]] = {}
    for row in rows:
        ends.setdefault(row["configuration"], []).append(row["curve"][-1]["all"])
    for number, row in enumerate(first):
        for point in row["curve"]:
            epoch = point["step"] * EPOCHS // steps - 1
            every[number, epoch], few[number, epoch] = point["all"], point["few"]
    exploded = [np.inf if r["explosion"] is None else r["explosion"]["step"] for r in first]
    numbers = [row["configuration"] for row in first]
    names = {0: "before", 1: "after"}
    return Nearest(
        name=f"detector, {header['table']}",
        points=points,
        every=every,
        few=few,
        quality=np.array([np.mean(ends[number]) for number in numbers]),
        explodes=np.array(exploded) * EPOCHS / steps,
        baselines={names[n]: points[i] for i, n in enumerate(numbers) if n in names},
    )


def space_ends(keys: list[str]) -> tuple[Array, Array]:
    """Logarithms of the lower and upper ends of the tables' space."""
    from benchmarks.record_table import SPACE
    from sweeps.config.file import load_spec

    spec, _ = load_spec(str(SPACE))
    low, high = ([getattr(spec.space[key], end) for key in keys] for end in ("low", "high"))
    return np.log(np.array(low, float)), np.log(np.array(high, float))
