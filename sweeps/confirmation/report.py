"""The plan and the results of a confirmation: printed, and written to `best.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fsdet.tables import build_table, print_table
from sweeps.config import SweepSpec
from sweeps.confirmation.resolution import power_line
from sweeps.confirmation.results import (
    CONFIRM_FILE,
    CandidateResult,
    Comparison,
    Confirmation,
    load_confirmation,
)
from sweeps.confirmation.statistics import (
    ALPHA,
    LEAST_SEEDS,
    Estimate,
    chance_better,
)
from sweeps.session.best_trial import record_best_trial
from sweeps.session.certainty import percent
from sweeps.session.display import format_number, format_setting, print_line
from sweeps.session.summary import write_configuration
from sweeps.states import State
from sweeps.storage.folder import SweepFolder
from sweeps.study.records import TrialRecord, folder_of
from sweeps.trial.failures import first_line


def plan_of_confirmation(spec: SweepSpec) -> str:
    """The runs of the confirmation and, with baselines to compare with, its statistical power."""
    assert spec.confirm is not None
    top, seeds, bases = spec.confirm.top_k, spec.confirm.seeds, len(spec.baselines)
    ablation = "; then the winner with each setting set back" if spec.ablate else ""
    runs = (
        f"confirmation: the {top} best and {bases} baselines over {seeds} fresh seeds on the test split, "
        f"at most {(top + bases) * seeds} runs{ablation}"
    )
    return f"{runs}\n  {power_line(seeds, top * bases)}" if bases else runs


def print_confirmation(console: Console, confirmation: Confirmation) -> None:
    """Print the tables and the conclusions."""
    seeds = confirmation.seeds
    print_line(
        console,
        f"\nconfirmed on the test split, {len(seeds)} fresh seeds ({seeds[0]} to {seeds[-1]}), the same "
        "for all; means and differences with 95 % intervals",
    )
    print_table(console, result_table(confirmation))
    for text in conclusions(confirmation):
        print_line(console, f"  {text}")
    if confirmation.ablation:
        print_line(console, "\nthe winner with one setting at a time set back to the baseline's:")
        print_table(console, ablation_table(confirmation))
        for text in ablation_lines(confirmation):
            print_line(console, f"  {text}")


def result_table(confirmation: Confirmation) -> Table:
    """Every configuration, best first, against every baseline."""
    bases = [m.candidate.label for m in confirmation.baselines]
    columns = ("", confirmation.metric, "in the search", *(f"against {b}" for b in bases))
    table = build_table(*columns, "swap gap", wrap=False)
    cells = {(c.first.label, c.second.label): c for c in confirmation.comparisons}
    winner = confirmation.winner
    rest = [m for m in confirmation.configurations if m not in confirmation.feasible]
    for measured in [*confirmation.feasible, *rest]:
        label = measured.candidate.label
        against = [format_comparison(cells.get((label, base))) for base in bases]
        searched = format_number(measured.candidate.searched, 4)
        gap = None if measured.infeasible else confirmation.estimate(measured, "test/swap_gap")
        table.add_row(
            label,
            format_result(confirmation, measured),
            searched,
            *against,
            format_number(None if gap is None else gap.mean, 4),
            style="bold" if measured is winner else None,
        )
    return table


def ablation_table(confirmation: Confirmation) -> Table:
    """One row for each setting that was set back."""
    winner, base = confirmation.winner, confirmation.best_baseline
    assert winner is not None
    assert base is not None
    metric = confirmation.metric
    columns = ("", "winner's", "set back to", f"{metric} then", "the winner's gain by it")
    table = build_table(*columns, wrap=False)
    cells = {c.second.factor: c for c in confirmation.contributions}
    for measured in confirmation.ablation:
        factor = measured.candidate.factor
        assert factor is not None
        own, other = (m.candidate.parameters[factor] for m in (winner, base))
        table.add_row(
            factor,
            format_setting(own),
            format_setting(other),
            format_result(confirmation, measured),
            format_comparison(cells.get(factor)),
        )
    return table


def format_result(confirmation: Confirmation, measured: CandidateResult) -> str:
    """Mean and interval, or why it was not measured."""
    exploded = measured.with_state(State.INFEASIBLE)
    if exploded:
        return f"infeasible: exploded at {format_seeds(exploded)}"
    found = confirmation.estimate(measured)
    if found is None:
        return "not measured"
    if measured in confirmation.configurations and measured not in confirmation.feasible:
        return f"not ranked: measured at {found.count} of {len(confirmation.seeds)} seeds"
    return format_interval(found)


def format_interval(found: Estimate, sign: str = "") -> str:
    """`mean [low, high]`, or the mean alone where there is no interval."""
    mean = f"{found.mean:{sign}.4f}"
    return (
        mean
        if math.isnan(found.half)
        else f"{mean} [{found.low:{sign}.4f}, {found.high:{sign}.4f}]"
    )


def format_comparison(comparison: Comparison | None) -> str:
    """Difference, interval and verdict."""
    if comparison is None:
        return "-"
    return f"{format_interval(comparison.difference.estimate, '+')} {comparison.verdict}"


def format_seeds(found: dict[int, str]) -> str:
    """`seed 1000` or `seeds 1000, 1001`."""
    return f"seed{'s' if len(found) > 1 else ''} {', '.join(map(str, found))}"


def conclusions(confirmation: Confirmation) -> list[str]:
    """The winner, then explosions and failures of the others, then the limits of the figures."""
    return [
        verdict_line(confirmation),
        *chance_lines(confirmation),
        *failure_lines(confirmation.configurations),
        *caveat_lines(confirmation),
    ]


def verdict_line(confirmation: Confirmation) -> str:
    """One sentence: which configuration to use, and how sure that is."""
    winner, base = confirmation.winner, confirmation.best_baseline
    if winner is None:
        return (
            "no configuration is feasible: each exploded at some seed, or was measured at fewer than "
            f"{LEAST_SEEDS}"
        )
    found = confirmation.estimate(winner)
    assert found is not None
    label, value = winner.candidate.label, format_interval(found)
    if base is None:
        return f"winner: {label}, {value}; no baseline is feasible to compare it with"
    if winner is base:
        return (
            f"no configuration is better than baseline {base.candidate.label} ({value}) beyond noise; "
            "that baseline is recommended"
        )
    against = next(
        c
        for c in confirmation.comparisons
        if c.first == winner.candidate and c.second == base.candidate
    )
    gain = format_interval(against.difference.estimate, "+")
    return (
        f"winner: {label}, {value}; better than the best baseline, {base.candidate.label}, by {gain}, "
        f"p {against.adjusted:.2g}"
    )


def chance_lines(confirmation: Confirmation) -> list[str]:
    """How probable it is that the best-ranked candidate beats each baseline."""
    best = next((m for m in confirmation.feasible if not m.candidate.baseline), None)
    if best is None:
        return []
    return [
        f"{best.candidate.label} is better than baseline {c.second.label} with a chance of "
        f"{percent(chance_better(c.difference, confirmation.mode))}"
        for c in confirmation.comparisons
        if c.first == best.candidate
    ]


def failure_lines(measured: tuple[CandidateResult, ...]) -> list[str]:
    """Explosions and gaps, one line each."""
    lines = []
    for one in measured:
        for state, verb in ((State.INFEASIBLE, "exploded"), (State.FAILED, "failed")):
            found = one.with_state(state)
            if found:
                reason = first_line(next(iter(found.values())))
                lines.append(f"{one.candidate.label} {verb} at {format_seeds(found)}: {reason}")
    return lines


def caveat_lines(confirmation: Confirmation) -> list[str]:
    """Limits of the figures."""
    rivals = len(confirmation.configurations)
    common, comparisons = confirmation.common_seeds, confirmation.comparisons
    lines = []
    if common and len(common) < len(confirmation.seeds):
        lines.append(
            "means are over the seeds at which all ranked configurations were measured: "
            f"{', '.join(map(str, common))}; differences are over all seeds of a pair"
        )
    if any(math.isnan(c.difference.estimate.half) for c in comparisons):
        lines.append(
            "a difference that is the same at every seed has no interval; its p is that of the sign test, "
            "2 / 2^seeds before correction"
        )
    if len(comparisons) > 1:
        lines.append(
            f"where no candidate is better than any baseline, one is called so with a chance of at most {ALPHA:g}: "
            f"Holm's correction for {len(comparisons)} comparisons; the intervals are not corrected"
        )
    if comparisons:
        fewest = min(c.difference.estimate.count for c in comparisons)
        lines.append(power_line(fewest, len(comparisons)))
    if rivals > 1:
        lines.append(
            f"the winner's mean is slightly optimistic: it was picked among {rivals} on these figures; the "
            "intervals are over seeds, not over other classes or images"
        )
    return lines


def ablation_lines(confirmation: Confirmation) -> list[str]:
    """Which settings of the winner made the difference."""
    found = confirmation.contributions
    meanings = {
        "better": "made the difference",
        "within noise": "within noise",
        "worse": "did harm",
    }
    lines = []
    for verdict, meaning in meanings.items():
        factors = [str(c.second.factor) for c in found if c.verdict == verdict]
        if factors:
            lines.append(f"{meaning}: {', '.join(factors)}")
    lines += failure_lines(confirmation.ablation)
    if len(found) > 1:
        lines.append(
            f"Holm's correction for {len(found)} comparisons; settings interact, so the gains need not add "
            "up to the total"
        )
    return lines


def confirmation_of(spec: SweepSpec, folder: SweepFolder) -> Confirmation | None:
    """The confirmation of a sweep; None without one, or if it was not completed."""
    return None if spec.confirm is None else load_confirmation(folder.path / CONFIRM_FILE)


def winning_trial(
    spec: SweepSpec, folder: SweepFolder, trials: Sequence[TrialRecord]
) -> TrialRecord | None:
    """The trial of the search whose configuration is the confirmed winner; None without one."""
    found = confirmation_of(spec, folder)
    if found is None or found.winner is None:
        return None
    number = found.winner.candidate.trial
    return next((trial for trial in trials if trial.number == number), None)


def write_winner(spec: SweepSpec, folder: SweepFolder, confirmation: Confirmation) -> Path | None:
    """Write the confirmed configuration to `best.yaml`; None without a winner."""
    winner = confirmation.winner
    if winner is None:
        return None
    findings = [
        f"Best of sweep {folder.name}, confirmed: {winner.candidate.label}",
        *conclusions(confirmation),
    ]
    path = write_configuration(spec, folder, winner.candidate.parameters, findings)
    if winner.candidate.trial is not None:
        record_best_trial(folder, folder_of(winner.candidate.trial))
    return path
