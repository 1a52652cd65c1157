"""Why workers of Ray Tune died."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from sweeps.ray_tune.adapters import WorkerFailures
from sweeps.trial import failures


def dead(trial_id: str, texts: list[str], folder: Path) -> SimpleNamespace:
    """A trial of Ray Tune, as far as it tells of its failures."""
    file = folder / f"{trial_id}.txt"
    parts = (f"Failure # {i} (occurred at noon)\n{text}\n" for i, text in enumerate(texts, 1))
    file.write_text("".join(parts))
    metadata = SimpleNamespace(num_failures=len(texts))
    return SimpleNamespace(trial_id=trial_id, error_file=str(file), run_metadata=metadata)


def test_kill_by_the_kernel_explains_one_death(tmp_path, monkeypatch):
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 1\noom_kill 3\n")
    monkeypatch.setattr(failures, "EVENTS", events)
    found = WorkerFailures()
    before, first, second = (dead(name, ["ActorDiedError"], tmp_path) for name in "abc")
    assert found.cause(before).startswith("the worker process died")
    events.write_text("low 0\noom 2\noom_kill 4\n")
    assert found.cause(first).startswith("out of memory: the kernel")
    assert found.cause(second).startswith("the worker process died")
    assert found.cause(first).startswith("out of memory: the kernel")


def test_latest_failure_counts(tmp_path):
    raised = "ray::train()\nsweeps.trial.failures.RanOutOfMemory: out of memory: MemoryError: a lot; less\n"
    one = dead("a", [raised], tmp_path)
    assert WorkerFailures().cause(one) == "out of memory: MemoryError: a lot; less"
    two = dead("a", [raised, "ActorDiedError"], tmp_path)
    assert WorkerFailures().cause(two).startswith("the worker process died")
    never = SimpleNamespace(trial_id="b", error_file=None, run_metadata=one.run_metadata)
    assert WorkerFailures().cause(never).startswith("the worker process died")
