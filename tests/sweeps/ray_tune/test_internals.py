"""The private members of Ray that this package relies on."""

from __future__ import annotations

from sweeps.ray_tune import internals
from sweeps.ray_tune.internals import RELIED_ON, missing_members

CONTROLLER = ("ray.tune.execution.tune_controller", "TuneController")


def test_this_version_of_ray_has_every_member():
    assert missing_members() == []


def test_a_member_that_is_gone_is_named_with_what_needs_it(monkeypatch):
    members = {**RELIED_ON[CONTROLLER], "_never_there": "retire_worker: a test"}
    monkeypatch.setitem(internals.RELIED_ON, CONTROLLER, members)
    (line,) = missing_members()
    assert line == (
        "ray.tune.execution.tune_controller.TuneController no longer has the member _never_there, "
        "needed by retire_worker: a test"
    )


def test_a_member_of_a_module_that_is_gone_is_named_too(monkeypatch):
    place = ("ray.tune.execution.class_cache", "")
    monkeypatch.setitem(internals.RELIED_ON, place, {"NEVER_THERE": "a test"})
    (line,) = missing_members()
    assert line == (
        "ray.tune.execution.class_cache no longer has the member NEVER_THERE, needed by a test"
    )
