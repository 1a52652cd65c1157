"""What trials and sweeps cost, estimated from one measured trial; how many trials share a card."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from fsdet.config import MULTIPLIERS, TrainConfig
from sweeps.config import SweepSpec

MORE, FEWER = (
    ("batch_size", "gradient_accumulation", "n_episodes", "epochs", "embed_dim", "reg_max"),
    ("eval_interval",),
)
"""Settings of which the most, or the least, costs most."""
WORKER_BYTES = 500_000_000
"""Memory of a Ray worker beside that of a trial: its libraries and leftovers of earlier trials. Measured 0.24 GB
in a first trial, 0.5 GB in a second one."""
MOST = 64
"""Trials on a card; with more, Ray's four digits cannot express the shares."""


@dataclass(frozen=True)
class TrialCost:
    """What a trial costs, in seconds and bytes."""

    import_seconds: float
    """To load the libraries; once a process."""
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
    """Peak resident memory, mapped libraries and images included, which processes share."""
    card_bytes: int = 0
    """Peak GPU memory, CUDA's own part included; 0 without a GPU."""
    card_total: int = 0
    """Memory of the GPU."""


def costliest(spec: SweepSpec) -> TrainConfig:
    """The configuration of the space that costs most: the first baseline at the largest sizes.

    Modules that some trials train are trained. Settings whose cost has no order, as the name of an
    encoder, are those of the baseline.
    """
    given = next(iter(spec.baseline_parameters().values()), {})

    def values_of(key: str) -> list[Any]:
        probes = spec.search_space.boundary_values(key)
        if key in MORE or key in FEWER:
            return [max(probes) if key in MORE else min(probes)]
        frozen = key in MULTIPLIERS.values() and not given.get(key)
        return [max(probes) if frozen else given.get(key, probes[-1])]

    return spec.config(next(spec.search_space.configurations(values_of)))


def trial_seconds(config: TrainConfig, measured: TrialCost) -> float:
    """Wall time of a whole trial of `config`, alone on its cores, in a process that runs already."""
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
    """Wall time of `trials` whole trials of `trial` seconds, `at_once` side by side."""
    return measured.import_seconds + math.ceil(trials / max(1, at_once)) * trial


def peak_card_bytes(free: int, total: int, reserved: int, peak: int) -> int:
    """Bytes of a card that one more process like the measured one takes.

    Args:
        free: of the card, now.
        total: of the card.
        reserved: by torch in the process, now.
        peak: most that torch has reserved in it.

    Returns:
        `peak` and all that torch knows nothing of: CUDA's context and loaded kernels, and, on a card
        that is not empty, what others hold, which no trial can have either.
    """
    return peak + max(0, total - free - reserved)


def trials_on_a_card(card_bytes: int, card_total: int, cores: float) -> int:
    """How many trials share a card; one, where it is not known that more fit.

    Args:
        card_bytes: taken by one.
        card_total: of the card, a tenth of which stays free.
        cores: CPU cores a card, over those of a trial.
    """
    room = math.floor(0.9 * card_total / card_bytes) if card_bytes else 1
    return max(1, min(room, math.floor(cores), MOST))


def share_of_card(trials: int) -> float:
    """GPUs a trial where `trials` share a card, in Ray's four digits, so that all of them fit."""
    return math.floor(10_000 / trials) / 10_000


@dataclass(frozen=True)
class SweepCost:
    """The cost of a sweep; times are those of whole trials, none stopped early."""

    measured: TrialCost
    config: TrainConfig
    """What was measured."""
    trial: float
    """Seconds a trial."""
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
    """The cost of `spec` where `at_once` trials run side by side."""
    config = costliest(spec)
    one = trial_seconds(config, measured)
    whole = sweep_seconds(spec.trials, at_once, one, measured)
    confirmation = None
    if spec.confirm is not None:
        job = trial_seconds(costliest(spec.for_confirmation), measured)
        jobs = most_runs(spec)
        confirmation = sweep_seconds(jobs, at_once, job, measured)
    return SweepCost(measured, config, one, whole, at_once, host_free, confirmation)


def most_runs(spec: SweepSpec) -> int:
    """Runs of a confirmation and, where asked for, of the ablation behind it, at most."""
    if spec.confirm is None:
        return 0
    settings = len(spec.search_space.searched) if spec.ablate else 0
    return (spec.confirm.top_k + len(spec.baselines) + settings) * spec.confirm.seeds
