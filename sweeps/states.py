"""The states of a trial, distinguished everywhere: study, tracker, tables, exit code.

running ─┬─ completed      ran to its end
         ├─ paused         reached a rung ── running again when it is promoted, otherwise pruned at the end
         ├─ infeasible     exploded
         ├─ failed         raised, hung, died or ran out of memory
         └─ interrupted    the sweep ended first ── running again when the sweep is resumed
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sweeps.secrets import without_password


class State(StrEnum):
    """State of a trial."""

    RUNNING = "running"
    COMPLETED = "completed"
    """Ran to its end."""
    PAUSED = "paused"
    """Reached a rung and freed its worker; it continues from its checkpoint if it is promoted."""
    PRUNED = "pruned"
    """Paused to the end of the sweep: never among the best at its rung."""
    INFEASIBLE = "infeasible"
    """Exploded: the configuration cannot be trained."""
    FAILED = "failed"
    """Crashed, or never measured the objective; says nothing about the configuration."""
    INTERRUPTED = "interrupted"
    """The sweep ended before the trial did; it resumes with the sweep."""


ENDED = (State.COMPLETED, State.PRUNED, State.INFEASIBLE, State.FAILED)
"""States of trials that a resumed sweep does not run again."""


@dataclass(frozen=True)
class Outcome:
    """How a trial or a sweep ended."""

    state: State
    reason: str = ""
    """Why; empty for a trial that ran to its end. Without secrets: study, tracker, tables and report show it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", without_password(self.reason))
