"""The health report of a run: a checklist with a verdict, written to `health.json` at the end of every run.

A value inside or below its band passes, above it warns. Only real faults fail: an explosion, inf or NaN, a
module or tensor without gradient, no positives, DFL that does not come down, and, in a long run, no AP or no
use of the supports. Bands are settings (`health_*`); what counts as a fault is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fsdet.config import TrainConfig
from fsdet.errors import ConfigError
from fsdet.health import rules
from fsdet.health.dfl import MIN_STEPS, dfl_falls
from fsdet.health.evidence import Check, Evidence
from fsdet.health.record import read_run, read_stored, save_health
from fsdet.report import Explosion
from fsdet.run_files import HEALTH_FILE, load_evaluations, load_steps

RULES_IN_ORDER: tuple[Callable[[Evidence], Check | list[Check]], ...] = (
    rules.exploded,
    rules.all_finite,
    rules.gradient_norm,
    rules.loss_terms,
    rules.total_falls,
    dfl_falls,
    rules.ap,
    rules.supports,
    rules.learning,
    rules.no_dead_tensors,
    rules.update_ratios,
    rules.clipping,
    rules.positives,
    rules.memory,
)
"""The checklist, in the order it is shown."""


@dataclass(frozen=True)
class HealthReport:
    """The health of a run, line by line."""

    checks: tuple[Check, ...]
    dead: tuple[str, ...]
    """Names of the tensors that never received a gradient."""
    verdict: str
    """The summary in words."""

    @property
    def failed(self) -> bool:
        """Whether any line failed."""
        return any(check.status == "fail" for check in self.checks)

    def check(self, name: str) -> Check:
        """The line called `name`.

        Raises:
            KeyError: there is none.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def health_report(
    config: TrainConfig,
    steps: Sequence[Mapping[str, float]],
    evaluations: Sequence[Mapping[str, float]],
    peaks: Mapping[str, float],
    explosion: Explosion | None,
) -> HealthReport:
    """Apply all rules to a run.

    Args:
        config: of the run.
        steps: what was measured at each optimiser step, in order; any value may be missing or not finite.
        evaluations: metrics of each evaluation, in order, with its `step`.
        peaks: trainable tensor -> its largest gradient norm; empty if not recorded.
        explosion: of `fsdet.health.stability`, if there was one.
    """
    run = Evidence(config, steps, evaluations, peaks, explosion)
    checks: list[Check] = []
    for line in RULES_IN_ORDER:
        found = line(run)
        checks += found if isinstance(found, list) else [found]
    dead = rules.dead_tensors(run)
    return HealthReport(tuple(checks), dead, verdict(checks, len(steps)))


def verdict(checks: Sequence[Check], steps: int) -> str:
    """A summary in a sentence or two, the faults first; a run of a few steps is not called healthy."""
    if steps == 0:
        return "nothing to report: the run has not taken a step"
    taken = f"{steps} step{'s' if steps > 1 else ''}"
    warned = [check.name for check in checks if check.status == "warn"]
    notes = f"warnings: {', '.join(warned)}" if warned else "no warnings"
    faults = [f"{check.name}: {check.message}" for check in checks if check.status == "fail"]
    if faults:
        return f"not healthy after {taken}. {'. '.join(faults)}. {notes.capitalize()}"
    if steps < MIN_STEPS:
        return f"too short to judge: {taken} without a fault, but it takes {MIN_STEPS}; {notes}"
    return f"healthy after {taken}; {notes}"


def write_health(
    run_dir: Path, config: TrainConfig, peaks: Mapping[str, float], explosion: Explosion | None
) -> HealthReport:
    """Report on the run in the folder `run_dir`, and write `health.json` there, atomically."""
    steps = load_steps(run_dir)
    report = health_report(config, steps, load_evaluations(run_dir), peaks, explosion)
    save_health(run_dir, asdict(report), len(steps), peaks, explosion)
    return report


def health_of_run(run_dir: Path) -> HealthReport:
    """Report on a run from its files: finished, exploded, killed or still running.

    Raises:
        ConfigError: the folder is no run, a file cannot be opened, or the config cannot be used.
    """
    run = read_run(run_dir)
    return health_report(run.config, run.steps, run.evaluations, run.peaks, run.explosion)


def read_health(run_dir: Path) -> HealthReport:
    """The report in `health.json` as it was written.

    Raises:
        ConfigError: there is none that can be read.
    """
    stored = read_stored(run_dir)
    if stored is None:
        raise ConfigError(
            f"{run_dir}: holds no {HEALTH_FILE} that can be read; `python -m fsdet.health {run_dir}` computes it"
        )
    return HealthReport(stored.checks, stored.dead, stored.verdict)
