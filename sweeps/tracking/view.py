"""A view of the MLflow UI: the trials of one sweep as a ranked table.

MLflow 3 opens an experiment on its page for language models. A link with `workflowType` and `viewStateShareKey` opens
the table of runs instead, with the filter, order and columns of a saved view: a tag of the experiment. The format of
the tag is that of MLflow's own `Save view`, which its documentation does not describe; a test opens the link.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

TAG = "mlflow.sharedViewState."
"""A tag of the experiment holds a view; its name ends with the key of the view."""
RANK = "rank"
"""Metric of the completed trials of a sweep that has ended: 1 is the best."""

RUN_NAME = "attributes.`Run Name`"
WIDTHS = {RUN_NAME: 400, "tags.`reason`": 260}
"""Pixels of columns with long texts."""


@dataclass(frozen=True)
class View:
    """The trials of one sweep."""

    name: str
    """Of the sweep."""
    sweep_id: str
    parent_run_id: str
    settings: Sequence[str]
    """Searched settings: the last columns."""
    ascending: bool = False
    """Whether a smaller objective is better."""
    ranked: bool = False
    """Whether the sweep has ended, so that its trials have a rank."""

    @property
    def columns(self) -> list[str]:
        """The columns after the name of a run."""
        metrics = [*([RANK] if self.ranked else []), "objective"]
        return [
            *(f"metrics.`{name}`" for name in metrics),
            *(f"tags.`{name}`" for name in ("state", "reason")),
            *(f"params.`{name}`" for name in self.settings),
            "attributes.`Duration`",
        ]

    def tag(self, created: int) -> tuple[str, str]:
        """Name and value of the tag.

        Args:
            created: milliseconds since the epoch.
        """
        state = {
            # the runs of a confirmation have the same parent, but an id of their own
            "searchFilter": f"tags.`mlflow.parentRunId` = '{self.parent_run_id}' and "
            f"tags.`sweep.id` = '{self.sweep_id}'",
            "orderByKey": f"metrics.`{RANK if self.ranked else 'objective'}`",
            "orderByAsc": self.ranked or self.ascending,
            "selectedColumns": self.columns,
            "columnOrder": [RUN_NAME, *self.columns],
            "columnWidths": WIDTHS,
        }
        view = {"name": self.name, "createdAt": created, "state": json.dumps(state)}
        return TAG + self.sweep_id, json.dumps(view)

    def link(self, experiment_id: str) -> str:
        """The path of the view, after the address of a server."""
        return (
            f"/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
            f"&viewStateShareKey={self.sweep_id}"
        )
