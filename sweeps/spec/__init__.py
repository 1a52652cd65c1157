"""What a sweep's YAML may say: its shape, its rules, how it is read and checked."""

from sweeps.spec.sweep import (
    COSTS,
    OWNED,
    Budget,
    ConfirmSpec,
    Objective,
    Resources,
    SweepSpec,
)

__all__ = [
    "COSTS",
    "OWNED",
    "Budget",
    "ConfirmSpec",
    "Objective",
    "Resources",
    "SweepSpec",
]
