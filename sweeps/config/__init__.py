"""What a sweep's YAML may say: its sections, its rules, how it is read and checked."""

from sweeps.config.sections import COSTS, Budget, ConfirmSpec, Objective, Resources
from sweeps.config.sweep import OWNED, SweepSpec

__all__ = [
    "COSTS",
    "OWNED",
    "Budget",
    "ConfirmSpec",
    "Objective",
    "Resources",
    "SweepSpec",
]
