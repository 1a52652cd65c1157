"""The JSON schema for editors: equal to the code, content with what is shipped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from sweeps.config.check import check_spec
from sweeps.config.file import load_spec
from sweeps.schema import build_schema, to_text

SHIPPED = Path(__file__).parents[2] / "search_spaces"


def errors(values: Any) -> list[str]:
    """Place of each complaint about `values`."""
    found = Draft202012Validator(build_schema()).iter_errors(values)
    return [".".join(str(part) for part in error.absolute_path) for error in found]


def test_shipped_schema_is_that_of_the_code():
    Draft202012Validator.check_schema(build_schema())
    text = (SHIPPED / "schema.json").read_text(encoding="utf-8")
    assert text == to_text(), "run: python -m sweeps.schema > search_spaces/schema.json"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.name)
def test_shipped_file_fits_and_names_the_schema(path):
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    assert errors(yaml.safe_load(text)) == []


WHOLE = """
name: whole
space:
  gradient_clip_mode: {choices: [norm, agc]}
  gradient_clip_norm: {low: 0.1, high: 100, log: true, when: {gradient_clip_mode: [norm]}}
  agc_clip_factor: {choices: [0.01, 0.1], when: {gradient_clip_mode: agc}}
  fusion_lr_mult: {low: 1, high: 9, step: 2}
  head_lr_mult: {tie: fusion_lr_mult, times: 2}
  compile: {choices: [true, false]}
baselines:
  mine: {gradient_clip_mode: agc, agc_clip_factor: 0.1, fusion_lr_mult: 1, compile: false}
fixed: {epochs: 4, resume: null}
objective: {metric: val/nAP, mode: max}
second_objective: {metric: trial/memory_bytes}
trials: 9
budget: {hours: 2, gpu_hours: 1.5, target: 0.6}
failures: {max_fraction: 0.2, after: 4}
stall_minutes: 20
warm_start: earlier
sampler: {name: nsgaii, seed: 1, startup_trials: 8}
scheduler: {name: none}
confirm: {top_k: 2, seeds: 4}
ablate: true
resources: {cpus: 2, gpus: 0.5}
tracking: {experiment: mine}
"""


def test_all_that_a_file_may_say_fits():
    assert errors(yaml.safe_load(WHOLE)) == []


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("trials: 9", "trails: 9", ""),
        ("trials: 9", "trials: 0", "trials"),
        ("name: whole", "name: ../x", "name"),
        ("epochs: 4", "epoch: 4", "fixed"),
        ("epochs: 4", "epochs: many", "fixed.epochs"),
        ("epochs: 4", "device: cuda", "fixed"),
        ("[norm, agc]", "[norm, acg]", "space.gradient_clip_mode.choices.1"),
        ("compile: {choices: [true, false]}", "n_way: {low: 2, high: 4}", "space"),
        ("step: 2}", "stpe: 2}", "space.fusion_lr_mult"),
        ("when: {gradient_clip_mode: agc}", "when: {clip_mode: agc}", "space.agc_clip_factor.when"),
        ("tie: fusion_lr_mult", "tie: fusion", "space.head_lr_mult.tie"),
        ("agc_clip_factor: 0.1,", "agc_clip: 0.1,", "baselines.mine"),
        ("name: nsgaii", "name: nsga", "sampler.name"),
        ("name: none", "name: pbt", "scheduler.name"),
        ("seeds: 4", "seeds: 2", "confirm"),
    ],
)
def test_broken_file_is_refused_at_its_place(old, new, place):
    assert old in WHOLE
    assert errors(yaml.safe_load(WHOLE.replace(old, new, 1))) == [place]


def test_example_in_the_guide_is_legal(in_own_folder):
    guide = (SHIPPED / "README.md").read_text(encoding="utf-8")
    text = guide.split("```yaml\n")[1].split("```")[0]
    assert errors(yaml.safe_load(text)) == []
    (in_own_folder / "example.yaml").write_text(text, encoding="utf-8")
    check_spec(*load_spec("example.yaml"))
