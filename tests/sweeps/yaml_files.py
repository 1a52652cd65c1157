"""Sweeps as YAML files: two that are right, and how one is read."""

from __future__ import annotations

from pathlib import Path

from sweeps.config import SweepSpec
from sweeps.config.check import check_spec
from sweeps.config.file import load_spec

GOOD = """\
name: good
space:
  gradient_clip_mode: {choices: [norm, agc]}
  gradient_clip_norm: {low: 0.1, high: 100, log: true, when: {gradient_clip_mode: norm}}
  agc_clip_factor: {choices: [0.01, 0.1], when: {gradient_clip_mode: [agc]}}
  fusion_lr_mult: {low: 1, high: 9, step: 2}
  head_lr_mult: {tie: fusion_lr_mult, times: 2}
baselines:
  clip: {gradient_clip_mode: norm, gradient_clip_norm: 10, fusion_lr_mult: 3}
  agc: {gradient_clip_mode: agc, agc_clip_factor: 0.1, fusion_lr_mult: 1}
trials: 9
"""
"""Conditions, a tied setting, steps; the lines are counted in tests."""
NUMBERS = """\
name: numbers
space:
  lr: {low: 0.001, high: 0.1, log: true}
  fusion_lr_mult: {low: 1, high: 9}
trials: 9
"""


def load(text: str, *overrides: str) -> SweepSpec:
    """Write `text` to a file, read and check it."""
    Path("x.yaml").write_text(text, encoding="utf-8")
    spec, lines = load_spec("x.yaml", overrides)
    check_spec(spec, lines)
    return spec
