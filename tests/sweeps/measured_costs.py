"""What a probe measured of a trial that never ran."""

from __future__ import annotations

from sweeps.resources.cost import TrialCost

GB = 10**9
MEASURED = TrialCost(
    import_seconds=6,
    startup_seconds=1,
    step_seconds=0.5,
    save_seconds=0.1,
    evaluation_seconds=4,
    final_seconds=9,
    host_bytes=GB,
)
