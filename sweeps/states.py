"""How a trial can end, and how its last report tells it.

The words are kept apart everywhere: in the study, in the tracker, in the tables, in the exit
code. A trial says itself how it stands by the `phase` of its reports, because whoever hears of
its end cannot know: to a searcher a trial that was stopped and one that finished look the same.

    running ─┬─ completed      ran to its end
             ├─ pruned         stopped by the scheduler
             ├─ infeasible     exploded
             ├─ failed         raised, hung, died or ran out of memory
             └─ interrupted    the sweep ended first ── running again when the sweep is resumed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """State of a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    """Ran to its end."""
    PRUNED = "pruned"
    """Stopped by the scheduler: worse than its peers at the same rung."""
    INFEASIBLE = "infeasible"
    """Exploded: the configuration cannot be trained."""
    FAILED = "failed"
    """Crashed, or never said how good it is; says nothing about the configuration."""
    INTERRUPTED = "interrupted"
    """The sweep ended before the trial did; it goes on when the sweep is resumed."""


ENDED = (State.COMPLETED, State.PRUNED, State.INFEASIBLE, State.FAILED)
"""States that no resumed sweep takes up again."""


@dataclass(frozen=True)
class Outcome:
    """End of one trial."""

    state: State
    reason: str = ""
    """Why, in words; empty for a trial that ran to its end."""


def outcome_of(last: Mapping[str, Any] | None, crashed: bool, why: str = "") -> Outcome:
    """Read the end of a trial from its last report.

    Args:
        last: last report, flat or nested; None if there never was one.
        crashed: the worker raised or died.
        why: what is known of a crash.
    """
    if crashed:
        unknown = "the worker process raised or died; see the log of the trial"
        return Outcome(State.FAILED, why or unknown)
    if not last or "phase" not in last:
        return Outcome(State.FAILED, "ended before its first report")
    reason = str(last.get("reason", ""))
    match last["phase"]:
        case "final":
            return Outcome(State.COMPLETED)
        case "exploded":
            return Outcome(State.INFEASIBLE, reason)
        case "failed":
            return Outcome(State.FAILED, reason)
        case _:
            return Outcome(State.PRUNED, f"worse than its peers at epoch {last.get('epoch')}")
