"""The private members of Ray Tune that are used, and by what; `RELIED_ON` lists those of `sweeps.resources` too.

`pyproject.toml` bounds Ray's version from above; `missing_members` lists what a newer one has removed.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from sweeps.resources import internals as resources_internals

RELIED_ON = {
    ("ray.tune.execution.tune_controller", "TuneController"): {
        "_started_actors": "retire_worker: workers that Tune may reuse",
        "_trial_to_actor": "retire_worker: worker of a trial; forget_ended: trials without one",
        "_trials": "forget_ended: all trials",
        "_stopped_trials": "forget_ended",
        "_trials_to_cache": "forget_ended: trials for Ray's snapshots, which are not written",
    },
    ("ray.tune.experiment", "Trial"): {
        "set_config": "change_trial: the request that a restarted trial gets",
        "update_resources": "change_trial: more memory for a restarted trial",
        "error_file": "latest_failure: what Ray wrote about failures",
        "run_metadata": "failure_count",
    },
    ("ray.tune.search", "Searcher"): {
        "_metric": "searcher_state",
        "_mode": "searcher_state",
    },
    ("ray.tune.execution.class_cache", ""): {
        "ENV_VARS_TO_PROPAGATE": "hide_from_workers",
    },
    **resources_internals.RELIED_ON,
}
"""(Module, class) -> member -> what needs it."""


def missing_members() -> list[str]:
    """One line for each member of `RELIED_ON` that this version of Ray does not have."""
    missing = []
    for (module, name), members in RELIED_ON.items():
        owner: Any = importlib.import_module(module)
        source = inspect.getsource(getattr(owner, name) if name else owner)
        where = f"{module}.{name}".rstrip(".")
        missing += [
            f"{where} no longer has the member {member}, needed by {purpose}"
            for member, purpose in members.items()
            if not re.search(rf"\b{member}\b", source)
        ]
    return missing


def hide_from_workers(variables: Iterable[str]) -> None:
    """Stop Tune from sending environment variables to its workers: Ray writes them into its logs."""
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(variables)


def retire_worker(controller: Any, trial: Trial) -> None:
    """Prevent Tune from reusing the worker of `trial`, which has just ended: it reuses started ones only."""
    controller._started_actors.discard(controller._trial_to_actor.get(trial))


def change_trial(trial: Trial, config: dict[str, Any], resources: Any = None) -> None:
    """Change the config and the resources of a trial that is about to be restarted."""
    trial.set_config(config)
    if resources is not None:
        trial.update_resources(resources)


def forget_ended(controller: Any) -> None:
    """Drop the trials that have ended and have no worker any more; those whose worker died may be restarted.

    Nothing reads them, and over thousands of trials they are most of what the driver holds; some of Ray's loops go over
    all of them.
    """
    ended = {t for t in controller._stopped_trials if t not in controller._trial_to_actor}
    controller._stopped_trials -= ended
    controller._trials_to_cache -= ended
    controller._trials[:] = [trial for trial in controller._trials if trial not in ended]


def failure_count(trial: Trial) -> int:
    """How many times a trial has failed."""
    return int(trial.run_metadata.num_failures)


def latest_failure(trial: Trial) -> str:
    """Ray's text about the latest failure of a trial, from the file that holds all of them.

    Not `trial.get_error()`, which reads the copy that is made at the end of the sweep.
    """
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    except (OSError, TypeError):
        return ""
    return text.rpartition("Failure # ")[2]


def searcher_state(searcher: Searcher) -> dict[str, Any]:
    """What a pickled searcher needs of Ray's base class."""
    return {"_metric": searcher._metric, "_mode": searcher._mode}
