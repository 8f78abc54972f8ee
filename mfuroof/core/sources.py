"""How a value was obtained, as small integers that kernels write and records carry.

The codes of measured lookups are ordered by how far the answer is from a measurement, so the worst of several
lookups is their maximum; `MISSING` (no answer, NaN) is above all others.
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["CLAMPED", "EXACT", "EXTRAPOLATED", "INTERPOLATED", "MISSING", "ROOFLINE", "SUBSTITUTED", "Source"]


class Source(IntEnum):
    """Code of where a value comes from; uint8 in arrays."""

    EXACT = 0
    """A measured point, verbatim."""
    INTERPOLATED = 1
    """Between measured points: blended, or read at a neighbouring one by floor, ceiling or nearest."""
    CLAMPED = 2
    """Outside the measured range; the value at its edge."""
    EXTRAPOLATED = 3
    """Outside the measured range; the edge's utilisation held, or a curve continued."""
    SUBSTITUTED = 4
    """Another shape, file, configuration or default stands in for the one that was asked for."""
    ROOFLINE = 5
    """No measurement at all: peak and bandwidth only."""
    MISSING = 255
    """No answer; the value is NaN."""


# Plain integers for kernels: numba freezes them as constants of the compiled code.
EXACT = int(Source.EXACT)
INTERPOLATED = int(Source.INTERPOLATED)
CLAMPED = int(Source.CLAMPED)
EXTRAPOLATED = int(Source.EXTRAPOLATED)
SUBSTITUTED = int(Source.SUBSTITUTED)
ROOFLINE = int(Source.ROOFLINE)
MISSING = int(Source.MISSING)
