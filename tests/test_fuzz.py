"""A short form of `make fuzz`, and whether its judge notices what it looks for."""

import mmap
import os
from pathlib import Path

import fuzz
import pytest
from fuzz import KINDS, Case, cases, run_case

SEEDS = {
    "labels": range(8),
    "config": range(15),
    "flags": range(15),
    "resume": range(15),
    "commands": range(25),
    "images": range(8),
    "checkpoints": range(25),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sweeps"])  # needs Ray
def test_a_bad_input_works_or_ends_with_a_line_of_ours(kind):
    found = {
        case.name: (outcome.faults, outcome.errors[-2000:])
        for case in cases(kind, SEEDS.get(kind, range(25)))
        if (outcome := run_case(case)).faults
    }
    assert found == {}


def crash() -> int:
    raise KeyError("x")


def write_outside() -> int:
    (Path.home() / "x").write_text("x")
    return 0


def burn() -> int:
    number, limit = 0, os.times().user + 1.2 * fuzz.CPU_SECONDS
    while os.times().user < limit:
        number += 1
    return 0


def fill() -> int:
    return len(b"x" * (3 << 29)) and 0


PLANTED = {
    "traceback": crash,
    "wrote home/x": write_outside,
    "s of CPU": burn,
    "GB": fill,
    "no line of ours": lambda: 2,
    "exit code 7": lambda: 7,
}


@pytest.mark.parametrize("fault", PLANTED)
def test_the_judge_notices_a_planted_fault(fault, monkeypatch):
    monkeypatch.setattr(fuzz, "CPU_SECONDS", 1.0)  # as if each second were five
    outcome = run_case(Case("planted", lambda: PLANTED[fault]))
    assert any(fault in found for found in outcome.faults)


def test_memory_is_what_the_case_adds_whatever_this_process_shares():
    with mmap.mmap(-1, 3 << 28) as shared:  # a fork begins without shared pages
        shared.write(b"x" * len(shared))
        outcome = run_case(Case("planted", lambda: fill))
    assert outcome.memory == pytest.approx(3 << 29, rel=0.1)
    assert any("GB" in found for found in outcome.faults)


def test_the_judge_finds_no_fault_where_there_is_none():
    assert run_case(Case("good", lambda: lambda: 0)).faults == []
