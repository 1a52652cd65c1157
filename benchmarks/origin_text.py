"""The conclusions that `origin_claims.py` judges, and the words of its page."""

from __future__ import annotations

from dataclasses import dataclass

LEAST_GAIN = 0.02
"""The smallest gain of AP50 that would matter: a claim that something helps is refuted if its gain is smaller."""

INTRO = """# What was really so: the conclusions of one team, each as an experiment

A team trained a few-shot detector, saw a gradient norm of 4.97 million in stage 2 and a DFL loss that would not
move, and found by hand what let them go on: clip at 10 instead of 1, weigh DFL 0.5 instead of 1.5, a learning
rate for each module. They did honest work with one run at a time and no way to tell a cause from a coincidence.
Here each conclusion is a pair of configurations that differ in it alone, trained at the same eight fresh seeds from
the shipped stage-1 checkpoint on the embedded data, and measured once, on test classes.

- **Refuted (worse)**: the first of the pair is worse.
- **Refuted (gain < 0.02)**: a gain of 0.02 AP50, the smallest that would matter, is excluded.
- **Supported**: the first is better, and a gain that matters is not excluded.
- **Undecided**: none of these; eight seeds do not tell.

Both questions are paired t-tests over seeds at 5 %, two-sided for a difference, one-sided for a gain of 0.02 or more,
each with Holm's correction over the claims of a table. Intervals are those of one claim alone. A run that explodes
counts as AP50 0. The command of a section runs all of its claims, and `python benchmarks/origin_claims.py` writes this
page from two sweeps, as far as they were run. What each clip mode does is described in [training.md](training.md).

This is one detector at 64 px on composed scenes of emoji, one image a batch, each clip mode at one setting. It shows
what a conclusion is worth here, not what it would be worth on drone footage at 640 px; the same file with another
dataset would show that.
"""


@dataclass(frozen=True)
class Claim:
    """A conclusion, as a pair of configurations."""

    said: str
    first: str
    """Name of the configuration that should be the better one."""
    second: str
    """Name of the other one."""
    why: str = ""
    """What explains the finding; a template for `origin_runs.Figures`."""
    why_low: str = ""
    """The same at the low rate, where that has another reason."""


@dataclass(frozen=True)
class Band:
    """A range that the team's checklist gives for a value at the end of a run."""

    name: str
    key: str
    low: float
    high: float


@dataclass(frozen=True)
class Point:
    """A learning rate, with the number of steps that it gets."""

    name: str
    """Of the sweep."""
    title: str
    short: str
    """Its name in a table."""
    command: str
    low: bool
    """Whether this is the low rate."""


POINTS = (
    Point(
        "origin_claims",
        "At a rate that suits 128 steps (lr 3e-3)",
        "lr 3e-3, 128 steps",
        "python -m sweeps.run origin_claims.yaml",
        low=False,
    ),
    Point(
        "origin_claims_low",
        "At the team's own rate (lr 1e-4), 1024 steps",
        "lr 1e-4, 1024 steps",
        "python -m sweeps.run origin_claims.yaml --name origin_claims_low "
        "--set fixed.lr=1e-4 --set fixed.n_episodes=64",
        low=True,
    ),
)

TEAM = (
    Claim(
        "clip the gradient norm at 10, not at 1",
        "by_hand",
        "clip_1",
        why="AdamW divides a gradient by its own running size, so a factor that all steps share is lost. At 1 "
        "{clip_1[clipped]:.0%} of the steps were clipped, at 10 {by_hand[clipped]:.0%}: what differs is how "
        "much the steps with a norm between 1 and 10 count beside the larger ones.",
    ),
    Claim(
        "clip at 10, rather than not at all",
        "by_hand",
        "no_clip",
        why="Nothing explodes without it, but a step with a large norm then counts in full. Clipping at 1 is not "
        "told apart from none either ({clip_1-no_clip}).",
        why_low="Nothing explodes without it, but a step with a large norm then counts in full. Clipping at 1 "
        "does the same as clipping at 10 ({clip_1-no_clip} against none).",
    ),
    Claim(
        "weigh DFL with 0.5, not 1.5",
        "by_hand",
        "dfl_1.5",
        why="The weight only changes the terms' shares of one gradient; no weight moves a DFL loss whose targets "
        "are wrong, as theirs were ([historical_failure.md](historical_failure.md)).",
    ),
    Claim(
        "train the backbone (at 0.5 of the rate), do not freeze it",
        "by_hand",
        "frozen_backbone",
        why="In so few steps the features of stage 1 serve nearly as well as they are. It is the rate that "
        "matters: a backbone at the full rate is worse than a frozen one ({adamw_full-frozen_backbone}).",
        why_low="With eight times as many steps at a thirtieth of the rate there is time to adapt the features of "
        "stage 1 without losing them; at the full rate too ({adamw_full-frozen_backbone}).",
    ),
    Claim(
        "a rate for each module, not one for all",
        "by_hand",
        "one_rate",
        why="Most of it is the backbone's rate alone: to halve it, with all else as by hand, gave "
        "{by_hand-adamw_full} (looked up afterwards, not one of the claims).",
        why_low="At this rate nothing moves too fast, and what slows a module down only holds it back. The backbone "
        "at the full rate, with all else as by hand, gave {adamw_full-by_hand} (looked up afterwards); the rest is "
        "the support encoder, which moves ten times as far, and fusion and head, which move half as far.",
    ),
    Claim(
        "lower the backbone's rate, do not scale its gradient (AdamW)",
        "adamw_slowed",
        "adamw_scaled",
        why="Under AdamW only the rate acts on the weights, since the scale is divided out again: the scaled "
        "backbone moves at its full rate.",
        why_low="Here too the scaled backbone moves at its full rate, which is the better one at this rate: a "
        "tenth of it gives {adamw_slowed-adamw_full}.",
    ),
    Claim(
        "scaling the backbone's gradient by 0.1 helps (AdamW)",
        "adamw_scaled",
        "adamw_full",
        why="The scale cancels in AdamW's division. It lowers the global norm, so that {adamw_scaled[clipped]:.0%} "
        "of the steps are clipped instead of {adamw_full[clipped]:.0%}.",
    ),
    Claim(
        "lower the backbone's rate, do not scale its gradient (SGD, for comparison)",
        "sgd_slowed",
        "sgd_scaled",
        why="Under SGD scale and rate are the same for the weights, but the scaled gradient also lowers the global "
        "norm: {sgd_scaled[clipped]:.0%} of the steps are clipped instead of {sgd_slowed[clipped]:.0%}, and "
        "all other modules move farther.",
    ),
    Claim(
        "scaling the backbone's gradient by 0.1 helps (SGD, for comparison)",
        "sgd_scaled",
        "sgd_full",
        why="The norm falls with it, and with the norm the clipping of all other modules "
        "({sgd_full[clipped]:.0%} of the steps to {sgd_scaled[clipped]:.0%}).",
    ),
    Claim(
        "adaptive clipping (AGC), rather than the norm at 10",
        "agc",
        "by_hand",
        why="Some unit was clipped at {agc[clipped]:.0%} of the steps. Like the norm clip it "
        "makes large gradients count for less, and it reaches nearly the same.",
        why_low="Some unit was clipped at {agc[clipped]:.0%} of the steps. It makes large gradients count for less, "
        "but gains less over no clipping ({agc-no_clip}) than the norm at 10 does ({by_hand-no_clip}).",
    ),
)
"""What the team concluded or proposed, in the order of the page."""

MODES_TEXT = """The team did not speak of the following: is another clip mode better than none, or than theirs?
"""

MODES = (
    Claim(
        "AGC, rather than no clipping",
        "agc",
        "no_clip",
    ),
    Claim(
        "AdaGC, rather than no clipping",
        "adagc",
        "no_clip",
        why="It reaches what the norm clip reaches: a factor that lasts is divided out by AdamW, one "
        "that differs between steps is not.",
    ),
    Claim(
        "ZClip, rather than no clipping",
        "zclip",
        "no_clip",
        why="It clips only what lies far above the running mean, {zclip[clipped]:.2%} of the steps here: it did "
        "what no clipping does.",
    ),
    Claim(
        "clipping AdamW's update, rather than no clipping",
        "update",
        "no_clip",
        why="{update[clipped]:.0%} of the tensors were clipped at a step, and some tensor at "
        "{update[touched]:.0%} of the steps; AdamW's averages take in the large gradients all the same.",
    ),
    Claim("AdaGC, rather than the norm at 10", "adagc", "by_hand"),
    Claim("ZClip, rather than the norm at 10", "zclip", "by_hand"),
    Claim("clipping AdamW's update, rather than the norm at 10", "update", "by_hand"),
)

CLAIM_COLUMNS = (
    "claim",
    "verdict",
    "gain in AP50 [95 %]",
    "p, no difference",
    "p, gain ≥ 0.02",
    "pair",
)
CONFIGURATION_NOTE = """*Clipped* is the share of the steps; modes that clip each tensor by itself have the mean share
of the tensors, and the share of the steps at which any was. RMS of g²/v is that of the tensor with the largest: its
mean over the steps, and the largest of all. *Scales add up to* is explained below; a frozen backbone has no gradient to
measure it on.
"""
CONFIGURATION_COLUMNS = (
    *("configuration", "AP50 on test ± half its interval", "exploded", "median norm", "clipped"),
    *("RMS of g²/v", "its maximum", "scales add up to"),
)

SCALES_TEXT = """## "The gradient exploded because four scales add up"

**Refuted.** The norm of a sum of four parts is at most four times their mean norm, and twice if they are unrelated.
Measured on one backbone weight that all scales share, at {steps} steps of {runs} runs, it was {mean:.2f} times, 95 % of
them between {low:.2f} and {high:.2f}, {most:.2f} at most. Four scales do not make 8 into millions;
[historical_failure.md](historical_failure.md) shows what did.
"""

BANDS = (
    Band("gradient norm 5 to 15", "grad/norm", 5, 15),
    Band("total loss 5 to 8", "train/loss/total", 5, 8),
    Band("DFL 1.0 to 1.5 nats", "train/loss/dfl", 1.0, 1.5),
    Band("box loss 0.2 to 0.8", "train/loss/bbox", 0.2, 0.8),
    Band("classification 0.3 to 0.5", "train/loss/cls", 0.3, 0.5),
    Band("SupCon 0.4 to 0.6", "train/loss/supcon", 0.4, 0.6),
)
BANDS_TEXT = """## Do the bands of their checklist predict a better run?

Each band is compared with the median of a run's last quarter, over all runs above. *Inside − outside* compares runs at
the same rate; whole configurations are resampled, since eight seeds of one configuration are no eight proofs, and the
intervals of all bands hold together in 95 % of cases (Bonferroni). A band with fewer than three configurations on a
side cannot be judged. The rank correlation is that of the value with AP50 among the runs of one configuration, whose
losses have the same weights; its p-value is by permutation within configurations.
"""
BAND_COLUMNS = (
    *("at the end", "verdict", "runs inside, at each rate", "AP50 inside − outside"),
    *("rank correlation with AP50", "p"),
)
