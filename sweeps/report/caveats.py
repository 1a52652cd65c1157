"""Warnings: what would mislead a reader of this sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fsdet.report import NO_SWAP_CONTROL
from sweeps.report.comparable import Comparable
from sweeps.report.importance import Importance
from sweeps.report.landscape import correlations
from sweeps.report.rank_correlation import RankCorrelation
from sweeps.report.scales import scales_of
from sweeps.report.section import Section
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import count, join, share
from sweeps.session.display import format_setting, short_name
from sweeps.states import State

EDGE = 0.05
"""Fraction of a range next to its ends that counts as the edge."""
PER_SETTING = 10
"""Trials for each searched setting below which they are few."""
MANY_EXPLODED = 0.3
"""Share of exploded trials from which a sweep wastes its compute on them."""
MANY_FAILED = 0.1
"""Share of failed trials from which something is wrong with the machine or the code."""


def caveats_section(
    data: SweepData, view: Comparable, ranked: Sequence[Importance], risky: str | None
) -> Section:
    """All warnings, or that there is none.

    Args:
        data: the sweep.
        view: its values that may be compared.
        ranked: importances.
        risky: the setting that predicts explosions.
    """
    found = tuple(caveats(data, view, ranked, risky))
    sentence = f"{count(len(found), 'thing')} to keep in mind." if found else "Nothing to warn of."
    return Section("warnings", "Warnings", sentence, warnings=found)


def caveats(
    data: SweepData, view: Comparable, ranked: Sequence[Importance], risky: str | None
) -> Iterator[str]:
    """One sentence for each warning; see `caveats_section`."""
    yield from at_the_edge(data)
    yield from flat_axes(ranked, correlations(data, view), risky)
    yield from few_trials(data, view)
    yield from many_lost(data)
    yield from close_swap_control(data)
    yield from unfinished(data)


def at_the_edge(data: SweepData) -> Iterator[str]:
    """Settings whose best value is next to an end of its range."""
    best = data.winner
    if best is None or best.record.baseline:
        return
    for scale in scales_of(data.spec):
        place = scale.position(best.record.parameters)
        if scale.choices or not (place < EDGE or place > 1 - EDGE):
            continue
        low = place < EDGE
        end, change = (scale.low, "lower low") if low else (scale.high, "raise high")
        yield (
            f"The best has {scale.title} at {format_setting(best.record.parameters[scale.key])}, next to the "
            f"{'lower' if low else 'upper'} end of its range ({end:g}): a better value may lie beyond; {change}."
        )


def flat_axes(
    ranked: Sequence[Importance], rising: Mapping[str, RankCorrelation], risky: str | None
) -> Iterator[str]:
    """Settings that make no difference: neither by importance, nor by rank correlation, nor to explosions."""
    related = {key for key, found in rising.items() if found.p < 0.05} | {risky}
    flat = [
        short_name(one.key) for one in ranked if not one.beyond_chance and one.key not in related
    ]
    if flat:
        verb = "makes" if len(flat) == 1 else "make"
        yield (
            f"{join(flat)} {verb} no difference to the objective beyond chance in these trials: their best "
            "values mean nothing; fix what does not matter, or run more trials."
        )


def few_trials(data: SweepData, view: Comparable) -> Iterator[str]:
    """Too few trials for the number of settings."""
    settings, values = len(data.spec.search_space.searched), len(view.values)
    if values < PER_SETTING * settings:
        yield (
            f"{count(values, 'trial')} with comparable values for {count(settings, 'searched setting')}: "
            f"importances, slices and the contour are rough; {PER_SETTING * settings} would be a fair number."
        )


def many_lost(data: SweepData) -> Iterator[str]:
    """Many exploded or failed trials."""
    exploded = [t for t in data.trials if t.exploded]
    failed = [t for t in data.trials if t.record.state is State.FAILED]
    ended = len(data.trials)
    if exploded and len(exploded) > MANY_EXPLODED * ended:
        yield (
            f"{share(len(exploded), ended)} of the trials exploded: lower the upper ends of the ranges where the "
            "map is red, so that the compute goes into trials that can win."
        )
    if failed and len(failed) > MANY_FAILED * ended:
        first = failed[0].record
        yield f"{len(failed)} of {count(ended, 'trial')} failed, trial {first.number} with: {first.reason}."


def close_swap_control(data: SweepData) -> Iterator[str]:
    """The best, or a baseline, that scores nearly as well with another class's supports, or whether that is unknown."""
    if any({**data.spec.fixed, **t.record.parameters}.get("n_way") == 1 for t in _one(data.winner)):
        yield f"The swap control is {NO_SWAP_CONTROL}."
    for trial in dict.fromkeys(t.number for t in [*_one(data.winner), *data.baselines]):
        found = next(t for t in data.trials if t.number == trial)
        gap, error = (found.record.metrics.get(f"val/{k}") for k in ("swap_gap", "swap_gap_se"))
        if gap is None or error is None or gap > 2 * error:
            continue
        yield (
            f"{data.name_of(found)} scores nearly the same with another class's supports (swap gap {gap:.3f}, two "
            f"standard errors {2 * error:.3f}): it finds objects, not the ones it is shown."
        )


def unfinished(data: SweepData) -> Iterator[str]:
    """Trials that have not ended, and a result that was not confirmed."""
    states = (State.RUNNING, State.PAUSED, State.INTERRUPTED)
    left = [t for t in data.trials if t.record.state in states]
    if left:
        yield f"{count(len(left), 'trial')} had not ended when this was written: {data.resume or 'resume the sweep'}."
    if data.best is not None and data.confirmation is None:
        yield "The result is unconfirmed: one seed for each trial, on the classes that chose the best."


def _one(trial: ShownTrial | None) -> list[ShownTrial]:
    return [] if trial is None else [trial]
