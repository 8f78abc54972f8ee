"""Conventions of step-time estimates as one record, what its fields may be, and the named presets."""

from mfuroof.params.checks import MOE_DISTRIBUTIONS, LookupRule
from mfuroof.params.record import CostParams

__all__ = ["MOE_DISTRIBUTIONS", "CostParams", "LookupRule"]
