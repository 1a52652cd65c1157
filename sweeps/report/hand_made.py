"""The claims behind the settings found by hand, as far as this sweep can say.

A team raised the clip norm from 1 to 10, lowered the weight of the DFL loss from 1.5 to 0.5, and gave each module a
learning rate of its own. It took norms of 5 to 15 and a DFL loss of 4 to 6, summed over four sides, as healthy, and
reported a norm of 4.97 million.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fsdet.config import MULTIPLIERS, HealthConfig
from sweeps.confirmation.results import Comparison
from sweeps.confirmation.statistics import holm
from sweeps.report.comparable import Comparable
from sweeps.report.landscape import correlations
from sweeps.report.section import Rows, Section
from sweeps.report.sweep_data import ShownTrial, SweepData
from sweeps.report.wording import count, join, number
from sweeps.states import State
from sweeps.study.records import noise_of_difference

Verdict = Literal["supported", "contradicted", "within noise", "close to inert here", "not here"]
MARKS: Mapping[Verdict, Literal["good", "bad", ""]] = {"supported": "good", "contradicted": "bad"}
BEFORE = {"gradient_clip_norm": 1.0, "dfl_weight": 1.5}
AFTER = {"gradient_clip_norm": 10.0, "dfl_weight": 0.5}
CHANGES: Mapping[str, tuple[str, int]] = {
    "gradient_clip_norm": ("Clip the gradient norm at 10, not at 1", +1),
    "dfl_weight": ("Weigh the DFL loss 0.5, not 1.5", -1),
    "backbone_lr_mult": ("Train the backbone slower (multiplier 0.5)", -1),
    "support_encoder_lr_mult": ("Train the support encoder slower (0.1)", -1),
    "fusion_lr_mult": ("Train the fusion faster (2)", +1),
    "head_lr_mult": ("Train the head faster (2)", +1),
}
"""Setting -> the claim, and whether higher (1) or lower (-1) is claimed to be better."""
MILLIONS = 4.97e6
RARE = 0.1
"""Share of sometimes clipped trials below which the clip norm is called inert."""
CLIP = "gradient_clip_norm"


@dataclass(frozen=True)
class Claim:
    """One claim with what the sweep says to it."""

    text: str
    evidence: str
    verdict: Verdict


def hand_made_section(data: SweepData, view: Comparable) -> Section:
    """All claims that this sweep says something to."""
    title = "The settings found by hand"
    claims = [*_together(data), *_changes(data, view), *_norms(data)]
    if not claims:
        return Section("hand_made", title, "This sweep searches none of them.")
    found = Counter(claim.verdict for claim in claims)
    parts = [f"{n} {verdict}" for verdict, n in found.most_common()]
    return Section(
        key="hand_made",
        title=title,
        sentence=f"Of {count(len(claims), 'claim')} behind them, {join(parts)}.",
        table=Rows(
            ("claim", "what this sweep says", "verdict"),
            tuple((claim.text, claim.evidence, claim.verdict) for claim in claims),
            tuple(MARKS.get(claim.verdict, "") for claim in claims),
        ),
        caption="Rank correlations are over the whole ranges, corrected for their number (Holm); at other settings, "
        "data or lengths of training the answers may differ.",
    )


def _together(data: SweepData) -> Iterator[Claim]:
    """All changes at once: the two baselines, where the YAML has them."""
    before, after = (_baseline_with(data, settings) for settings in (BEFORE, AFTER))
    if before is None or after is None:
        return
    text = f"All changes together: {after.record.baseline} is better than {before.record.baseline}"
    confirmed = _confirmed(data, after, before)
    if confirmed is not None:
        found = confirmed.difference.estimate
        verdicts: Mapping[str, Verdict] = {"better": "supported", "worse": "contradicted"}
        yield Claim(
            text,
            f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] over {found.count} seeds on the test split",
            verdicts.get(confirmed.verdict, "within noise"),
        )
    elif after.exploded or before.exploded:
        who = join(t.record.baseline for t in (before, after) if t.exploded)
        verdict: Verdict = "contradicted" if after.exploded else "supported"
        yield Claim(text, f"{who} exploded", "not here" if " and " in who else verdict)
    elif (noise := noise_of_difference(after.record, before.record)) is not None:
        assert after.record.value is not None
        assert before.record.value is not None
        gain = after.record.value - before.record.value
        sure = abs(gain) > noise
        better = data.spec.objective.sign * gain > 0
        yield Claim(
            text,
            f"{gain:+.4f} on one seed; two standard errors are {noise:.4f}",
            ("supported" if better else "contradicted") if sure else "within noise",
        )


def _baseline_with(data: SweepData, settings: Mapping[str, float]) -> ShownTrial | None:
    known = (t for t in data.baselines if t.record.value is not None or t.exploded)
    return next((t for t in known if settings.items() <= t.record.parameters.items()), None)


def _confirmed(data: SweepData, first: ShownTrial, second: ShownTrial) -> Comparison | None:
    confirmation = data.confirmation
    if confirmation is None:
        return None
    found = {m.candidate.baseline: m for m in confirmation.feasible}
    pair = [found.get(t.record.baseline) for t in (first, second)]
    if pair[0] is None or pair[1] is None:
        return None
    return next(iter(confirmation.compare([(pair[0], pair[1])])), None)


def _changes(data: SweepData, view: Comparable) -> Iterator[Claim]:
    """Each setting on its own."""
    found = {key: c for key, c in correlations(data, view).items() if key in CHANGES}
    adjusted = dict(zip(found, holm([c.p for c in found.values()]), strict=True))
    ablated = {} if data.confirmation is None else _ablated(data)
    for key, (text, direction) in CHANGES.items():
        if key not in data.spec.space:
            continue
        evidence = [ablated[key]] if key in ablated else []
        verdict: Verdict = "within noise"
        if key in found:
            rho, p = found[key].rho, adjusted[key]
            evidence.append(
                f"rank correlation with the objective {rho:+.2f} over {found[key].count} trials, p {p:.2g}"
            )
            agrees = rho * data.spec.objective.sign * direction > 0
            verdict = ("supported" if agrees else "contradicted") if p < 0.05 else "within noise"
        if key == CLIP and (regimes := _regimes(data)):
            evidence.append(regimes)
            verdict = "close to inert here" if _is_inert(data) else verdict
        yield Claim(
            text, "; ".join(evidence) or "too few trials", verdict if evidence else "not here"
        )


def _ablated(data: SweepData) -> dict[str, str]:
    """Setting -> what the winner loses without its own value of it."""
    assert data.confirmation is not None
    return {
        c.second.factor: f"the winner's value gains {c.difference.estimate.mean:+.4f} over the baseline's ({c.verdict})"
        for c in data.confirmation.contributions
        if c.second.factor is not None
    }


def _count_regimes(data: SweepData) -> Counter[str]:
    return Counter(r for t in data.trials if (r := t.regime))


def _regimes(data: SweepData) -> str:
    found = _count_regimes(data)
    if not found:
        return ""
    return f"{found['sometimes']} of {sum(found.values())} trials were clipped at some steps but not at all"


def _is_inert(data: SweepData) -> bool:
    found = _count_regimes(data)
    return found["sometimes"] <= RARE * sum(found.values())


def _norms(data: SweepData) -> Iterator[Claim]:
    """What was taken for healthy."""
    done = [t for t in data.trials if t.record.state is State.COMPLETED and t.series is not None]
    yield from _band(data, done, "A healthy gradient norm is 5 to 15", "norm")
    if done and any(key in data.spec.space for key in (*MULTIPLIERS.values(), "dfl_weight")):
        yield from _band(
            data, done, "A healthy DFL loss is 4 to 6, which is 1 to 1.5 a side", "dfl"
        )
    peaks = [t.series.peak for t in data.trials if t.series is not None and t.series.peak]
    if peaks:
        over = sum(peak >= MILLIONS for peak in peaks)
        yield Claim(
            "Norms reach 4.97 million",
            f"the largest global norm before clipping is {number(max(peaks))}, {over} of {len(peaks)} trials reach "
            "that; a sum of the norms of single tensors, still scaled for mixed precision, is far larger than the norm",
            "supported" if over else "not here",
        )


def _band(
    data: SweepData, done: list[ShownTrial], text: str, of: Literal["norm", "dfl"]
) -> Iterator[Claim]:
    health = HealthConfig()
    low, high = health.health_norm if of == "norm" else health.health_dfl

    def at_end(trial: ShownTrial) -> float | None:
        if trial.series is None:
            return None
        return trial.series.last_norm if of == "norm" else trial.series.dfl

    values = [value for t in done if (value := at_end(t)) is not None]
    best = None if data.winner is None else at_end(data.winner)
    if not values or best is None:
        return
    inside = sum(low <= value <= high for value in values)
    evidence = (
        f"{inside} of {len(values)} completed trials end there, the best one at {best:.3g}, "
        f"the median at {statistics.median(values):.3g}"
    )
    yield Claim(text, evidence, "supported" if low <= best <= high else "not here")
