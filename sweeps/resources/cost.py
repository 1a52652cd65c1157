"""The cost of trials and sweeps, estimated from one measured trial; how many trials share a card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fsdet.config import MULTIPLIERS, TrainConfig
from sweeps.config import SweepSpec

COSTLY_HIGH, COSTLY_LOW = (
    ("batch_size", "gradient_accumulation", "n_episodes", "epochs", "embed_dim", "reg_max"),
    ("eval_interval",),
)
"""Settings whose highest, or lowest, value costs most."""
WORKER_BYTES = 500_000_000
"""Memory of a Ray worker in addition to that of its trial: libraries and leftovers of earlier trials. Measured
0.24 GB in a first trial, 0.5 GB in a second one."""
MAX_PER_CARD = 64
"""Most trials on a card; with more, Ray's four digits cannot express the shares."""


@dataclass(frozen=True)
class TrialCost:
    """The measured cost of a trial, in seconds and bytes."""

    import_seconds: float
    """To load the libraries; once per process."""
    startup_seconds: float
    """To load data and model before the first step, and to close the files at the end."""
    step_seconds: float
    """An optimiser step, median."""
    save_seconds: float
    """A checkpoint."""
    evaluation_seconds: float
    """An evaluation during the run."""
    final_seconds: float
    """The last evaluation, which measures more."""
    host_bytes: int
    """Peak resident memory, including mapped libraries and images, which processes share."""
    card_bytes: int = 0
    """Peak GPU memory, CUDA's own part included; 0 without a GPU."""
    card_total: int = 0
    """Memory of the GPU."""
    standard_error: float | None = None
    """Of the objective over the episodes of the last evaluation; None if it was not measured."""


def costliest(spec: SweepSpec) -> TrainConfig:
    """The configuration of the space that costs most: the first baseline at the largest sizes.

    Modules that some trials train are trained. Settings whose cost has no order, such as the name of an
    encoder, are those of the baseline.
    """
    given = next(iter(spec.baseline_parameters().values()), {})

    def values_of(key: str) -> list[Any]:
        probes = spec.search_space.boundary_values(key)
        if key in COSTLY_HIGH or key in COSTLY_LOW:
            return [max(probes) if key in COSTLY_HIGH else min(probes)]
        frozen = key in MULTIPLIERS.values() and not given.get(key)
        return [max(probes) if frozen else given.get(key, probes[-1])]

    return spec.config(next(spec.search_space.configurations(values_of)))


def trial_seconds(config: TrainConfig, measured: TrialCost) -> float:
    """Wall time of a complete trial of `config`, alone on its cores, in a process that is already running."""
    evaluations = math.ceil(config.epochs / config.eval_interval)
    saves = math.ceil(config.epochs / config.save_interval)
    return (
        measured.startup_seconds
        + config.total_steps * measured.step_seconds
        + (evaluations - 1) * measured.evaluation_seconds
        + measured.final_seconds
        + saves * measured.save_seconds
    )


def sweep_seconds(trials: int, at_once: int, trial: float, measured: TrialCost) -> float:
    """Wall time of `trials` complete trials of `trial` seconds, `at_once` in parallel."""
    return measured.import_seconds + math.ceil(trials / max(1, at_once)) * trial


def peak_card_bytes(free: int, total: int, reserved: int, peak: int) -> int:
    """Bytes of a card that one more process like the measured one takes.

    Args:
        free: of the card, now.
        total: of the card.
        reserved: by torch in the process, now.
        peak: most that torch has reserved in it.

    Returns:
        `peak` and everything outside torch's allocator: CUDA's context and loaded kernels, and memory of
        other processes on the card, which is not available to trials.
    """
    return peak + max(0, total - free - reserved)


def trials_on_a_card(card_bytes: int, card_total: int, cores: float) -> int:
    """How many trials share a card; one if the memory of a trial was not measured.

    Args:
        card_bytes: of one trial.
        card_total: of the card, a tenth of which stays free.
        cores: CPU cores per card, divided by those of a trial.
    """
    room = math.floor(0.9 * card_total / card_bytes) if card_bytes else 1
    return max(1, min(room, math.floor(cores), MAX_PER_CARD))


def share_of_card(trials: int) -> float:
    """GPUs per trial if `trials` share a card, rounded down to Ray's four digits, so that all of them fit."""
    return math.floor(10_000 / trials) / 10_000


@dataclass(frozen=True)
class SweepCost:
    """The cost of a sweep if no trial is stopped early."""

    measured: TrialCost
    config: TrainConfig
    """Of the measured trial."""
    trial: float
    """Seconds per trial."""
    sweep: float
    """Seconds of all trials."""
    at_once: int
    host_free: int
    """Bytes of main memory that were free."""
    confirmation: float | None
    """Seconds of all runs of the confirmation; None if none is asked for."""

    @property
    def trial_bytes(self) -> int:
        """Main memory of a trial and its worker."""
        return self.measured.host_bytes + WORKER_BYTES

    @property
    def host_bytes(self) -> int:
        """Main memory of the trials that run at once."""
        return self.at_once * self.trial_bytes

    @property
    def fits(self) -> bool:
        """Whether they fit into the memory that was free."""
        return self.host_bytes <= self.host_free


def estimate(spec: SweepSpec, measured: TrialCost, at_once: int, host_free: int) -> SweepCost:
    """The cost of `spec` with `at_once` trials in parallel."""
    config = costliest(spec)
    trial = trial_seconds(config, measured)
    sweep = sweep_seconds(spec.trials, at_once, trial, measured)
    confirmation = None
    if spec.confirm is not None:
        run = trial_seconds(costliest(spec.for_confirmation), measured)
        confirmation = sweep_seconds(most_runs(spec), at_once, run, measured)
    return SweepCost(measured, config, trial, sweep, at_once, host_free, confirmation)


def most_runs(spec: SweepSpec) -> int:
    """Largest number of runs of the confirmation and its ablation."""
    if spec.confirm is None:
        return 0
    settings = len(spec.search_space.searched) if spec.ablate else 0
    return (spec.confirm.top_k + len(spec.baselines) + settings) * spec.confirm.seeds
