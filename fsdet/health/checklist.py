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
from fsdet.health import evaluation_rules, rules
from fsdet.health.dfl import MIN_STEPS, dfl_falls
from fsdet.health.record import read_run, read_stored, save_health
from fsdet.health.run_record import Check, RunRecord
from fsdet.report import Explosion
from fsdet.run_files import HEALTH_FILE, load_evaluations, load_steps

RULES_IN_ORDER: tuple[Callable[[RunRecord], Check | list[Check]], ...] = (
    rules.exploded,
    rules.all_finite,
    rules.gradient_norm,
    rules.loss_terms,
    rules.total_falls,
    dfl_falls,
    evaluation_rules.ap,
    evaluation_rules.supports,
    rules.learning,
    rules.no_dead_tensors,
    rules.update_ratios,
    rules.clipping,
    rules.spikes,
    rules.positives,
    evaluation_rules.memory,
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
            KeyError: no line has this name.
        """
        for check in self.checks:
            if check.name == name:
                return check
        raise KeyError(name)


def health_report(run: RunRecord) -> HealthReport:
    """Apply all rules to a run."""
    checks: list[Check] = []
    for line in RULES_IN_ORDER:
        found = line(run)
        checks += found if isinstance(found, list) else [found]
    dead = rules.dead_tensors(run)
    return HealthReport(tuple(checks), dead, verdict(checks, len(run.steps)))


def verdict(checks: Sequence[Check], steps: int) -> str:
    """A summary in a sentence or two, faults first; a run of fewer than `MIN_STEPS` steps is not called healthy."""
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
    report = health_report(RunRecord(config, steps, load_evaluations(run_dir), peaks, explosion))
    save_health(run_dir, asdict(report), len(steps), peaks, explosion)
    return report


def health_of_run(run_dir: Path) -> HealthReport:
    """Report on a run from its files: finished, exploded, killed or still running.

    Raises:
        ConfigError: the folder is not a run folder, a file cannot be opened, or the config cannot be used.
    """
    return health_report(read_run(run_dir))


def read_health(run_dir: Path) -> HealthReport:
    """The report stored in `health.json`.

    Raises:
        ConfigError: it is missing or cannot be read.
    """
    stored = read_stored(run_dir)
    if stored is None:
        raise ConfigError(
            f"{run_dir}: holds no {HEALTH_FILE} that can be read; `python -m fsdet.health {run_dir}` computes it"
        )
    return HealthReport(stored.checks, stored.dead, stored.verdict)
