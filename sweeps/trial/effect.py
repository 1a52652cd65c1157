"""Proof of effect: what the first step of a trial used, compared with what was suggested and with other trials.

A sweep whose settings get lost on the way to the optimiser trains the same run many times, and every value it shows is
the noise of nothing. So each trial sends a `FirstStep` with its first report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fsdet.config import MULTIPLIERS, TrainConfig
from fsdet.errors import ConfigError
from fsdet.reading import read_json
from fsdet.report import FIRST_STEP_FILE, FirstStep
from sweeps.config.paths import INPUT_PATHS
from sweeps.trial.identity import IRRELEVANT, settings_of

SHOWN = (
    *("lr", "weight_decay", "seed", *MULTIPLIERS.values()),
    *("bbox_weight", "cls_weight", "dfl_weight"),
    *("image_size", "support_size", "n_way", "n_query", "n_shot"),
    *("embed_dim", "reg_max", "support_encoder"),
)
"""Settings that change the digest of the first step, whatever the others are: the optimiser, the criterion or the
batches have their value, or the size of what is computed depends on it."""
MEASURED = ("grad/norm", "grad/norm_after")
"""Keys of `FirstStep.measured`."""
ROUNDING = 1e-3
"""By which fraction a clipped norm may differ from its limit: the gradients may be in half precision."""
CURE = (
    "no value of this sweep can be trusted: look for a trainer or a wrapper that drops or overwrites settings, "
    "then start the sweep anew"
)


@dataclass
class FirstSteps:
    """The first steps of the trials of one session, as far as they have reported."""

    _by_digest: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Digest of step 1 -> label and settings of the first trial that had it."""

    def check(self, label: str, config: TrainConfig, first: FirstStep) -> str | None:
        """Why the trial `label` did not train with `config`, or trained like another one; None if it did not.

        Args:
            label: of the trial.
            config: with the settings that were suggested.
            first: what it used.
        """
        if (lost := lost_setting(config, first)) is not None:
            return f"{label} {lost}; {CURE}"
        if first.step != 1 or not math.isfinite(first.measured["grad/norm"]):
            return None
        settings = settings_of(config)
        other, theirs = self._by_digest.setdefault(first.digest, (label, settings))
        if (key := differing(settings, theirs)) is None:
            return None
        return (
            f"{label} has {key} {settings[key]!r} and {other} has {theirs[key]!r}, but their first steps are "
            f"identical to the last bit: {key} has no effect; {CURE}"
        )


def lost_setting(config: TrainConfig, first: FirstStep) -> str | None:
    """The first setting of `config` that the trial did not use, in words; None if it used all."""
    for key, suggested in config.model_dump(mode="json").items():
        had = first.settings.get(key, suggested)
        if key not in (*IRRELEVANT, *INPUT_PATHS) and had != suggested:
            return f"trained with {key} {had!r}, but {suggested!r} was suggested"
    for name, suggested in expected(config):
        used = first.used.get(name)
        if used is not None and used != suggested:
            return f"used {name} {used!r} in its first step, but {suggested!r} was suggested"
    return _unclipped(config, first.measured)


def expected(config: TrainConfig) -> Iterator[tuple[str, float]]:
    """What `FirstStep.used` must hold, computed from the config alone."""
    for module, setting in MULTIPLIERS.items():
        yield f"lr/{module}", config.lr * getattr(config, setting)
        yield f"weight_decay/{module}", config.weight_decay
    for setting in type(config).model_fields:
        if setting.endswith("_weight"):
            yield f"weight/{setting.removesuffix('_weight')}", getattr(config, setting)
    yield "seed", float(config.seed)


def _unclipped(config: TrainConfig, measured: Mapping[str, float]) -> str | None:
    """Whether the norm that the optimiser got is not what the clip mode makes of it, in words."""
    before, after = (measured[name] for name in MEASURED)
    if not math.isfinite(before) or config.gradient_clip_mode not in ("norm", "none"):
        return None
    limit = config.gradient_clip_norm if config.gradient_clip_mode == "norm" else 0.0
    due = min(before, limit) if limit > 0 else before
    if math.isclose(after, due, rel_tol=ROUNDING):
        return None
    mode = f"gradient_clip_mode {config.gradient_clip_mode}, gradient_clip_norm {limit:g}"
    return f"clipped a gradient norm of {before:.4g} to {after:.4g}, but {mode} makes it {due:.4g}"


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str | None:
    """The first setting of `SHOWN` in which two trials differ; None if they agree in all."""
    return next((key for key in SHOWN if one[key] != other[key]), None)


def read_first_step(run_dir: Path) -> FirstStep | None:
    """The first step of the run in `run_dir`; None if it was not recorded or cannot be read."""
    try:
        found = FirstStep(**read_json(run_dir / FIRST_STEP_FILE))
    except (ConfigError, TypeError):
        return None
    return found if _is_whole(found) else None


def _is_whole(first: FirstStep) -> bool:
    """Whether a record that was read has what `FirstSteps.check` looks at."""
    if not isinstance(first.step, int) or not isinstance(first.digest, str):
        return False
    if not all(isinstance(part, dict) for part in (first.settings, first.used, first.measured)):
        return False
    numbers = [*first.used.values(), *(first.measured.get(name) for name in MEASURED)]
    return all(isinstance(number, int | float) for number in numbers)
