"""Which configurations are confirmed, and the ablations of a winner.

A confirmation runs a trial of a second study for each configuration and seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from sweeps.config import ConfirmSpec, SweepSpec
from sweeps.study.records import Preset, TrialRecord, ranked

FIRST_SEED = 1000
"""Seeds of a confirmation begin here."""


@dataclass(frozen=True)
class Candidate:
    """One configuration to run at several seeds."""

    label: str
    """Shown in tables."""
    folder: str
    """Name of its folder; unique in the sweep."""
    parameters: dict[str, Any]
    """Searched settings."""
    trial: int | None = None
    """Number of its trial in the search."""
    searched: float | None = None
    """Value of that trial, on the validation split."""
    baseline: str | None = None
    """Name of the baseline, if it is one."""
    factor: str | None = None
    """The setting that was set back, if this is an ablation."""


def presets_of(candidates: Sequence[Candidate], seeds: Sequence[int]) -> list[Preset]:
    """A trial for every candidate and seed, ordered by seed: an early stop affects all candidates alike."""
    return [preset_of(candidate, seed) for seed in seeds for candidate in candidates]


def preset_of(candidate: Candidate, seed: int) -> Preset:
    """The trial of one candidate at one seed."""
    return Preset(
        parameters=candidate.parameters,
        baseline=candidate.baseline,
        key=f"{candidate.folder}/seed_{seed}",
        title=f"{candidate.label}, seed {seed}",
        overrides={"seed": seed},
        tags={"sweep.confirms": candidate.trial, "sweep.set_back": candidate.factor},
    )


def seeds_of(spec: SweepSpec, confirm: ConfirmSpec) -> list[int]:
    """Seeds that the search did not use, the same for all configurations."""
    wanted = range(FIRST_SEED, FIRST_SEED + confirm.seeds + 1)
    used = spec.search_space.constant("seed")
    return [seed for seed in wanted if seed != used][: confirm.seeds]


def candidates_of(
    spec: SweepSpec, confirm: ConfirmSpec, trials: Sequence[TrialRecord]
) -> list[Candidate]:
    """The `top_k` best completed trials that are not baselines, and every baseline, without duplicates."""
    baselines = spec.baseline_parameters()
    unique: list[TrialRecord] = []
    known = list(baselines.values())
    for trial in ranked(trials, spec.objective):
        if trial.parameters not in known:
            known.append(trial.parameters)
            unique.append(trial)
    by_name = {t.baseline: t for t in trials if t.baseline}
    return [_searched(t) for t in unique[: confirm.top_k]] + [
        _baseline(name, values, by_name.get(name)) for name, values in baselines.items()
    ]


def _searched(trial: TrialRecord) -> Candidate:
    return Candidate(
        label=f"trial {trial.number}",
        folder=f"trial_{trial.number:04d}",
        parameters=trial.parameters,
        trial=trial.number,
        searched=trial.value,
    )


def _baseline(name: str, parameters: dict[str, Any], trial: TrialRecord | None) -> Candidate:
    return Candidate(
        label=name,
        folder=f"baseline_{quote(name, safe='')}",
        parameters=parameters,
        trial=None if trial is None else trial.number,
        searched=None if trial is None else trial.value,
        baseline=name,
    )


def ablations_of(spec: SweepSpec, winner: Candidate, baseline: Candidate) -> list[Candidate]:
    """The winner with one setting at a time as in the baseline.

    A setting that applies to only one of the two changes with the setting that it depends on, and so do tied
    settings. If a setting would apply that has a value in neither, the ablation is left out.
    """
    shared = winner.parameters.keys() & baseline.parameters.keys()
    factors = [
        key
        for key in spec.space
        if key in shared and winner.parameters[key] != baseline.parameters[key]
    ]
    found = []
    for factor in factors:
        parameters = set_back(spec, winner.parameters, baseline.parameters, factor)
        if parameters is not None:
            folder = f"ablation_{winner.folder}_to_{baseline.folder}/{factor}"
            if parameters == baseline.parameters:  # nothing else differs: measured already
                folder = baseline.folder
            found.append(
                Candidate(f"{winner.label}, {factor} set back", folder, parameters, factor=factor)
            )
    return found


def set_back(
    spec: SweepSpec, winner: dict[str, Any], baseline: dict[str, Any], factor: str
) -> dict[str, Any] | None:
    """`winner` with `factor` as in `baseline`, and with the settings that then apply.

    None if a setting would apply that has a value in neither.
    """
    values, space = {**baseline, **winner, factor: baseline[factor]}, spec.search_space
    try:
        complete = next(space.configurations(lambda key: [values[key]]))
    except KeyError:
        return None
    return {key: value for key, value in complete.items() if key in space.searched}
