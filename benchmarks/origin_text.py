"""The conclusions that `origin_claims.py` judges, and the words of its page."""

from __future__ import annotations

from dataclasses import dataclass

INTRO = """# What was really so: the conclusions of one team, each as an experiment

A team trained a few-shot detector, saw a gradient norm of 4.97 million in stage 2 and a DFL loss that would not
move, and found by hand what let them go on: clip at 10 instead of 1, weigh DFL 0.5 instead of 1.5, a learning
rate for each module. They did honest work with one run at a time and no way to tell a cause from a coincidence.
Here each conclusion is a pair of configurations that differ in it alone, trained at the same fresh seeds from
the shipped stage-1 checkpoint on the embedded data, and measured once, on test classes.

*Supported*: better beyond noise (paired t-test over seeds, Holm's correction over the claims of a table, 5 %).
*Refuted*: worse beyond noise, or the 95 % interval leaves no room for a gain of 0.02 AP50. *Undecided*:
neither. This page is written by `python benchmarks/origin_claims.py` from two sweeps, as far as they were run;
what each mode does stands in [training.md](training.md).

One claim needs no training. *"The gradient exploded because four scales add up."* The norm of a sum of four
parts is at most four times their mean norm, twice if they are unrelated; the column *scales add up to* shows
what was measured. Four scales do not make 8 into millions; [historical_failure.md](historical_failure.md) shows
what did.
"""


@dataclass(frozen=True)
class Claim:
    """A conclusion of the team, as a pair of configurations."""

    said: str
    first: str
    """Name of the configuration that should be the better one."""
    second: str
    """Name of the other one."""
    why: str
    """What explains the finding, in a sentence or two."""


@dataclass(frozen=True)
class Band:
    """A range that the team's checklist gives for a value at the end of a run."""

    name: str
    key: str
    low: float
    high: float


CLAIMS = (
    Claim(
        "clip the gradient norm at 10, not at 1",
        "by_hand",
        "clip_1",
        "AdamW divides a gradient by its own running size, so a factor that all steps share is lost. At "
        "1 nearly every step was clipped, at 10 most of them: what is left of the difference is how much "
        "the few largest steps count.",
    ),
    Claim(
        "clip at all",
        "by_hand",
        "no_clip",
        "Nothing explodes without it, but a step with a large norm then counts in full.",
    ),
    Claim(
        "weigh DFL with 0.5, not 1.5",
        "by_hand",
        "dfl_1.5",
        "The weight shares out one gradient among the terms; no weight moves a DFL loss whose targets "
        "are wrong, as theirs were ([historical_failure.md](historical_failure.md)).",
    ),
    Claim(
        "train the backbone, do not freeze it",
        "by_hand",
        "frozen_backbone",
        "In so few steps the features of stage 1 serve as they are: training them neither harms nor "
        "brings much.",
    ),
    Claim(
        "a rate for each module, not one for all",
        "by_hand",
        "one_rate",
        "At one rate the support encoder moves ten times and the backbone twice as far in a step as by "
        "hand, fusion and head half as far. Which of the four matters, this pair does not tell; of all "
        "the changes made by hand this is the one that gained most.",
    ),
    Claim(
        "lower the backbone's rate, do not scale its gradient (AdamW)",
        "adamw_slowed",
        "adamw_scaled",
        "Under AdamW only the rate acts on the weights; the scale is divided out again, and what it "
        "changes is which part of the norm is clipped.",
    ),
    Claim(
        "scaling the backbone's gradient by 0.1 helps (AdamW)",
        "adamw_scaled",
        "adamw_full",
        "The scale cancels in AdamW's division. It lowers the global norm, so that other modules are "
        "clipped less.",
    ),
    Claim(
        "lower the backbone's rate, do not scale its gradient (SGD)",
        "sgd_slowed",
        "sgd_scaled",
        "Under SGD scale and rate are the same for the weights, but the scaled gradient also lowers the "
        "global norm, and fewer steps are clipped.",
    ),
    Claim(
        "scaling the backbone's gradient by 0.1 helps (SGD)",
        "sgd_scaled",
        "sgd_full",
        "See the line above: the norm falls with it, and with the norm the clipping of everything else.",
    ),
    Claim(
        "adaptive clipping (AGC) helps",
        "agc",
        "by_hand",
        "It limits each unit by its weights at nearly every step, which AdamW then divides out.",
    ),
    Claim(
        "clipping AdamW's update helps",
        "update",
        "by_hand",
        "The largest RMS of g²/v of a step stays near 2 here: there is no spike to tame, and every "
        "clipped update is a step lost.",
    ),
    Claim(
        "clipping spikes of the norm (ZClip) helps",
        "zclip",
        "by_hand",
        "No norm lay far enough above its running mean to be a spike, so it did what no clipping does.",
    ),
    Claim(
        "clipping each tensor by its own history (AdaGC) helps",
        "adagc",
        "by_hand",
        "As with AGC, a factor that lasts is divided out by AdamW.",
    ),
)
"""In the order of the page."""
BANDS = (
    Band("gradient norm 5 to 15", "grad/norm", 5, 15),
    Band("total loss 5 to 8", "train/loss/total", 5, 8),
    Band("DFL 1.0 to 1.5 nats", "train/loss/dfl", 1.0, 1.5),
    Band("box loss 0.2 to 0.8", "train/loss/bbox", 0.2, 0.8),
    Band("classification 0.3 to 0.5", "train/loss/cls", 0.3, 0.5),
    Band("SupCon 0.4 to 0.6", "train/loss/supcon", 0.4, 0.6),
)


LOW_RATE = (
    "python -m sweeps.run origin_claims.yaml --name origin_claims_low "
    "--set fixed.lr=1e-4 --set fixed.n_episodes=64"
)
SWEEPS = (
    (
        "origin_claims",
        "At a rate that suits 128 steps (lr 3e-3)",
        "python -m sweeps.run origin_claims.yaml",
    ),
    (
        "origin_claims_low",
        "At the team's own rate (lr 1e-4), 1024 steps",
        LOW_RATE,
    ),
)
"""Name of the sweep, title of its section, command that runs it."""
