"""What the winner finds: the page of detections that its run drew at its end."""

from __future__ import annotations

import base64

from sweeps.report.section import Picture, Section
from sweeps.report.sweep_data import SweepData
from sweeps.report.wording import number
from sweeps.trial.messages import find_metric

SWAP_GAP = "swap_gap"
"""AP50 that is lost when every class is searched with another class's supports."""


def detections_section(data: SweepData, png: bytes | None) -> Section:
    """The section with the picture of the winner's detections.

    Args:
        data: of the sweep.
        png: the picture; None if the winner's run drew none, or it is not on this machine.
    """
    title, winner = "What it finds", data.winner
    if winner is None:
        return Section("detections", title, "No trial completed, so there is nothing to show.")
    label = f"trial {winner.record.label}"
    if png is None:
        return Section("detections", title, f"The run of {label} left no picture on this machine.")
    metric, value = data.spec.objective.metric, winner.record.value
    found = "" if value is None else f", whose {metric} is {number(value)}"
    gap = find_metric(winner.record.metrics, SWAP_GAP)
    control = "" if gap is None else f"; with another class's photographs it loses {number(gap)}"
    return Section(
        key="detections",
        title=title,
        sentence=f"The first episodes of the last evaluation of {label}{found}{control}.",
        picture=Picture(
            source=f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}",
            alt=f"Supports beside the finds of {label}: right, wrong and missed objects",
        ),
    )
