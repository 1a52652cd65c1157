"""Mistakes in a sweep's YAML: told with file, line, key and cure, nothing started."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from yaml_files import load

from sweeps.config.check import check_spec, missing_paths
from sweeps.config.file import FOLDER, load_spec
from sweeps.errors import SweepError
from sweeps.resources.machine import Machine
from sweeps.session.summary import print_plan

REPOSITORY = Path(__file__).parents[3]
GOOD = """\
name: good
space:
  lr: {low: 1e-4, high: 1e-2, log: true}
  dfl_weight: {low: 0.1, high: 3, log: true}
baselines:
  before: {lr: 1e-3, dfl_weight: 1.5}
fixed:
  epochs: 4
trials: 4
"""


MISTAKES = {
    "unknown key": ("trials: 4", "trails: 4", ["x.yaml:9", "'trails'", "did you mean 'trials'"]),
    "unknown setting": (
        "  dfl_weight: {",
        "  dfl_wieght: {",
        ["x.yaml:4", "did you mean 'dfl_weight'"],
    ),
    "unknown fixed": ("epochs: 4", "epoch: 4", ["x.yaml:8", "fixed.epoch", "'epochs'"]),
    "unknown in range": ("{low: 0.1,", "{lwo: 0.1,", ["x.yaml:4", "'lwo'", "did you mean 'low'"]),
    "upside down": ("{low: 0.1, high: 3", "{low: 3, high: 0.1", ["x.yaml:4", "low < high", "swap"]),
    "log of zero": ("{low: 0.1, high: 3", "{low: 0, high: 3", ["x.yaml:4", "low > 0", "drop log"]),
    "half a range": ("{low: 0.1, high: 3, log: true}", "{low: 0.1}", ["x.yaml:4", "low and high"]),
    "both": ("high: 3, log: true}", "high: 3, choices: [1]}", ["x.yaml:4", "not both"]),
    "illegal end": (
        "{low: 1e-4, high: 1e-2, log: true}",
        "{low: -1, high: 1}",
        ["x.yaml:3", "greater"],
    ),
    "illegal choice": (
        "  dfl_weight: {low: 0.1, high: 3, log: true}",
        "  dfl_weight: {choices: [-1]}",
        ["x.yaml:4", "space.dfl_weight", "-1"],
    ),
    "not alike": ("  dfl_weight: {", "  n_way: {", ["x.yaml:4", "space.n_way", "measured alike"]),
    "range of words": ("  dfl_weight: {", "  bbox_loss: {", ["x.yaml:4", "choices"]),
    "fraction of an int": (
        "  dfl_weight: {",
        "  gradient_accumulation: {",
        ["x.yaml:4", "whole number", "0.1"],
    ),
    "sampler": (
        "trials: 4",
        "sampler: {name: tpee}",
        ["x.yaml:9", "sampler.name", "'tpe'", "'tpee'"],
    ),
    "scheduler": (
        "trials: 4",
        "scheduler: {name: ahsa}",
        ["scheduler.name", "did you mean 'asha'"],
    ),
    "objective": ("trials: 4", "objective: {metric: val/nAP5}", ["objective.metric", "val/nAP50"]),
    "twice": ("trials: 4", "trials: 4\nname: b", ["x.yaml:10", "'name'", "line 1", "remove one"]),
    "twice deep": (
        "  epochs: 4",
        "  epochs: 4\n  epochs: 5",
        ["x.yaml:9", "fixed.epochs", "line 8"],
    ),
    "bad YAML": ("space:", "space: [", ["x.yaml:", "not valid YAML", "correct"]),
    "owned": ("epochs: 4", "device: cuda", ["x.yaml:8", "fixed.device", "resources"]),
    "owned dir": ("epochs: 4", "checkpoint_dir: x", ["fixed.checkpoint_dir", "remove"]),
    "searched and fixed": ("epochs: 4", "lr: 0.1", ["x.yaml:8", "fixed.lr", "searched", "remove"]),
    "explosion rule": (
        "  dfl_weight: {",
        "  explosion_norm: {",
        ["x.yaml:4", "explosion", "under fixed"],
    ),
    "seed": (
        "  dfl_weight: {low: 0.1, high: 3, log: true}",
        "  seed: {choices: [1, 2]}",
        ["x.yaml:4", "space.seed", "under fixed"],
    ),
    "baseline lacks": (
        "{lr: 1e-3, dfl_weight: 1.5}",
        "{lr: 1e-3}",
        ["baselines.before", "dfl_weight", "add"],
    ),
    "baseline outside": (
        "dfl_weight: 1.5}",
        "dfl_weight: 30}",
        ["x.yaml:6", "must lie in", "widen"],
    ),
    "baseline strange": (
        "dfl_weight: 1.5}",
        "dfl_weight: 1.5, n_wya: 2}",
        ["n_wya", "not searched"],
    ),
    "fixed value": ("epochs: 4", "epochs: 0", ["x.yaml:8", "fixed.epochs", "0"]),
    "missing file": (
        "epochs: 4",
        "resume: no/where.pt",
        ["x.yaml:8", "fixed.resume", "no/where.pt"],
    ),
    "too few trials": ("trials: 4", "trials: 0", ["x.yaml:9", "trials", "0"]),
    "name": ("name: good", "name: ../good", ["x.yaml:1", "name", "../good"]),
    "lacks space": (
        GOOD[GOOD.index("space:") : GOOD.index("baselines:")],
        "",
        ["x.yaml", "space", "required"],
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistake_is_told_with_place_and_cure(case):
    old, new, words = MISTAKES[case]
    assert old in GOOD
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace(old, new))
    for word in words:
        assert word in str(caught.value)


def test_good_file_is_read():
    spec = load(GOOD)
    assert spec.baseline_parameters() == {"before": {"lr": 0.001, "dfl_weight": 1.5}}
    assert spec.config({"lr": 0.002, "dfl_weight": 1}).lr == 0.002


def test_every_mistake_is_told_at_once():
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace("trials: 4", "trails: 4").replace("high: 3", "hihg: 3"))
    assert "trails" in str(caught.value)
    assert "hihg" in str(caught.value)


def test_override_reaches_the_file_and_the_trainer():
    spec = load(GOOD, "sampler.seed=7", "epochs=2", "lr.high=0.1")
    assert spec.sampler.seed == 7
    assert spec.fixed["epochs"] == 2
    assert spec.space["lr"].high == 0.1


@pytest.mark.parametrize("override", ["epochs", "lr=1", "name.x=1"])
def test_bad_override_is_told(override):
    with pytest.raises(SweepError, match="--set"):
        load(GOOD, override)


def test_bare_name_is_looked_for_in_the_folder_of_spaces(in_own_folder):
    (in_own_folder / FOLDER).mkdir()
    (in_own_folder / FOLDER / "mine.yaml").write_text(GOOD, encoding="utf-8")
    assert load_spec("mine.yaml")[0].name == "good"
    with pytest.raises(SweepError, match="looked for"):
        load_spec("there/mine.yaml")


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("stage2_clip_dfl.yaml", set()),
        ("stage2_clip_dfl_full.yaml", {"fixed.resume", "fixed.data_root"}),
    ],
)
def test_shipped_files_pass_the_check(name, missing):
    spec, lines = load_spec(name)
    check_spec(spec, lines)
    assert list(spec.baselines) == ["before", "after"]
    assert set(missing_paths(spec)) == missing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["x.yaml"], ["error: x.yaml:9", "did you mean 'trials'"]),
        (["none.yaml"], ["none.yaml: no such file"]),
    ],
)
def test_command_line_says_it_in_one_line(arguments, words):
    Path("x.yaml").write_text(GOOD.replace("trials: 4", "trails: 4"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "sweeps.run", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert not Path("mlruns").exists()
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epoch=2", "--set epoch=2: unknown key 'epoch'; did you mean 'epochs'?"),
        ("smapler.name=tpe", "unknown key 'smapler'; did you mean 'sampler'?"),
        ("qqq=1", "unknown key 'qqq'; --help"),
        ("sampler=random", "must be a group of keys (name, "),
        ("sampler=random", "but got 'random'; did you mean sampler.name=random?"),
        ("budget=2", "did you mean budget.hours=2?"),
        ("resources=[1]", "must be a group of keys (cpus, "),
        (
            "space.seed=[1, 2]",
            "must be a group of keys, as in {low: 0.1, high: 10} or {choices: [1, 2]}",
        ),
        ("baselines=x", "must be a group of keys, as in key: value, but got 'x'"),
        ("early_eval_epochs=1", "must be a list, but got 1; write [1]"),
        ("base_classes=cat,dog", "must be a list, but got 'cat,dog'; write [cat,dog]"),
    ],
)
def test_what_set_cannot_mean_is_said_with_what_it_could(in_own_folder, override, told):
    Path("small.yaml").write_text(GOOD)
    with pytest.raises(SweepError) as caught:
        check_spec(*load_spec("small", [override]))
    assert told in str(caught.value)


def test_set_takes_lists_and_null_and_the_file_needs_no_suffix(in_own_folder):
    Path("small.yaml").write_text(GOOD)
    given = ["early_eval_epochs=[1, 2]", "confirm=null", "base_classes=[a, b]", "data_root=null"]
    spec, lines = load_spec("small", given)
    check_spec(spec, lines)
    assert spec.source == "small.yaml"
    assert spec.confirm is None
    assert (spec.fixed["early_eval_epochs"], spec.fixed["base_classes"]) == ([1, 2], ["a", "b"])
    assert spec.fixed["data_root"] is None


@pytest.mark.parametrize(
    "more",
    [
        "".join(f"k{n}: 1\n" for n in range(50_000)),
        "fixed2:\n" + "".join(f"  k{n}: 1\n" for n in range(50_000)),
        "sampler:\n" + "".join(f"  k{n}: 1\n" for n in range(50_000)),
        "sampler: " + "x" * 5_000_000,
        "confirm: {seeds: " + "x" * 5_000_000 + "}",
    ],
    ids=["unknown keys", "unknown group", "unknown below", "long value", "long number"],
)
def test_many_or_long_mistakes_are_few_short_lines_in_time(more):
    Path("x.yaml").write_text(GOOD + more + "\n", encoding="utf-8")
    begin = time.process_time()
    with pytest.raises(SweepError) as caught:
        load_spec("x.yaml")
    assert time.process_time() - begin < 5
    lines = str(caught.value).splitlines()
    assert len(lines) <= 21
    assert max(map(len, lines)) < 700


def test_many_unknown_settings_are_told_in_time():
    many = "".join(f"  k{n}: 1\n" for n in range(50_000))
    begin = time.process_time()
    with pytest.raises(SweepError) as caught:
        load(GOOD.replace("  epochs: 4\n", "  epochs: 4\n" + many))
    assert time.process_time() - begin < 5
    assert str(caught.value).splitlines()[-1] == "x.yaml: has more mistakes; correct these first"


def test_markup_in_a_name_is_shown_as_it_is():
    text = GOOD.replace("  before:", "  '[bold]x[/nope]':")
    printed = io.StringIO()
    print_plan(load(text), Machine(2, 0), Console(file=printed, width=200))
    assert "[bold]x[/nope]" in printed.getvalue()


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_of_no_file_is_told(name):
    with pytest.raises(SweepError, match="no such file"):
        load_spec(name)
