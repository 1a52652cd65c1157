"""Which runs the recorded table of learning curves holds, and that what is recorded can be made again."""

from __future__ import annotations

import json
from typing import Any

import pytest
import record_table
from record_table import FOLDER, PLANS, SPACE, configurations, missing, read, runs

from sweeps.config.file import load_spec

PLAN = PLANS["main"]


def row(configuration: int, seed: int, value: float) -> dict[str, Any]:
    return {"configuration": configuration, "seed": seed, "curve": [{"all": value}]}


def first_runs() -> list[dict[str, Any]]:
    """Every configuration once; the later the better."""
    return [row(number, PLAN.first_seed, number / 1e3) for number in range(2 + PLAN.configurations)]


def test_configurations_are_the_baselines_and_points_of_the_space():
    spec, _ = load_spec(str(SPACE))
    found = configurations(PLAN)
    assert found[:2] == list(spec.baseline_parameters().values())
    assert len(found) == 2 + PLAN.configurations
    assert len({str(values) for values in found}) == len(found)
    assert all(spec.accepts(values) for values in found)
    assert found == configurations(PLAN)
    assert found[2:] != configurations(PLANS["report"])[2:]


def test_every_configuration_is_run_once_before_any_is_repeated():
    rows = first_runs()
    assert runs(PLAN, rows[:-1]) == [(r["configuration"], r["seed"]) for r in rows]
    assert len(runs(PLAN, rows)) > len(rows)


def test_the_best_and_the_baselines_have_ten_seeds_and_the_first_ones_three():
    seeds: dict[int, int] = {}
    for number, _ in runs(PLAN, first_runs()):
        seeds[number] = seeds.get(number, 0) + 1
    last = 2 + PLAN.configurations
    best = range(last - PLAN.best, last)
    assert [seeds[number] for number in (0, 1, *best)] == [10] * (2 + PLAN.best)
    assert {seeds[number] for number in range(2, 2 + PLAN.repeated)} == {3}
    assert {seeds[number] for number in range(2 + PLAN.repeated, best[0])} == {1}


def test_what_is_recorded_is_not_run_again():
    rows = first_runs()[:5]
    left = list(missing("main", rows))
    assert len(left) == 2 + PLAN.configurations - 5
    assert ("main", 5, PLAN.first_seed) in left


def test_a_line_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "main.jsonl"
    lines = [{"table": "main"}, row(0, 0, 0.5), row(1, 0, 0.6)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines)[:-5])
    assert read(path) == (lines[0], lines[1:2])
    assert read(tmp_path / "none.jsonl") == ({}, [])


@pytest.mark.parametrize("name", [path.stem for path in FOLDER.glob("*.jsonl")])
def test_the_shipped_table_is_the_one_that_its_plan_describes(name):
    header, rows = read(FOLDER / f"{name}.jsonl")
    assert header["plan"] == vars(PLANS[name])
    assert header["configurations"] == configurations(PLANS[name])
    wanted = set(runs(PLANS[name], rows))
    keys = [(r["configuration"], r["seed"]) for r in rows]
    assert len(set(keys)) == len(keys)
    assert set(keys) <= wanted
    assert all([point["step"] for point in r["curve"]] == list(record_table.RUNGS) for r in rows)
    assert (FOLDER / f"{name}.jsonl").stat().st_size < 2e6
