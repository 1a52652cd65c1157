"""Builds the request to run a trial from its record in the study."""

from __future__ import annotations

from sweeps.config import SweepSpec
from sweeps.study.records import Preset, TrialRecord
from sweeps.trial.messages import TrialRequest
from sweeps.trial.trial import TrialContext


def build_request(
    record: TrialRecord,
    spec: SweepSpec,
    context: TrialContext,
    parameters: dict[str, object] | None = None,
) -> TrialRequest:
    """The request to run a trial of the study.

    Args:
        record: of the trial.
        spec: of the sweep.
        context: of its trials.
        parameters: settings that were suggested for it, tied ones included; None for the record's.
    """
    if parameters is None:
        parameters = spec.search_space.complete(record.parameters)
    preset = record.preset or Preset({})
    settings = {**parameters, **preset.overrides}
    return TrialRequest(
        number=record.number,
        folder=record.folder,
        run_key=record.run_key,
        parameters=settings,
        config=spec.config(settings, context.run_dir(record.folder)),
        baseline=record.baseline,
        title=record.title,
        tags=preset.tags,
        retried=record.retried,
        until=record.until,
    )
