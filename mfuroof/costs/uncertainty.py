"""How far a predicted step time may be off, from how it was obtained.

Two parts in quadrature. What every prediction has: the residual of whole steps and serving points against measurements,
framework, clocks and software versions included. And what its lookups add: the leave-one-out error of a value of that
source, and of its distance to data.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.core.sources import Source

__all__ = ["LOOKUP_HALF_WIDTH", "MODEL_HALF_WIDTH", "relative_half_width"]

MODEL_HALF_WIDTH = 0.10
"""Sized by `mfuroof.validate.intervals` on 974 closed-loop TPOTs (three engines, four models, two GPUs): 9 % on all of
them, and between 8 and 9.7 % without each model or GPU in turn, whose own points it then covers to 79 %. The widest of
these, since the next model is none of them."""
LOOKUP_HALF_WIDTH = MappingProxyType(
    {
        Source.EXACT: 0.01,
        Source.INTERPOLATED: 0.03,
        Source.CLAMPED: 0.08,
        Source.EXTRAPOLATED: 0.08,
        Source.SUBSTITUTED: 0.10,
        Source.ROOFLINE: 1.0,
    }
)
"""Relative half-width of an 80 % interval of one lookup, by source: leave-one-out errors of the embedded tables (GEMM
sites 3-4 % in the median and 12-16 % at the 90th percentile, attention heads 1-3 % and 5-11 %), diluted by the many
lookups of a step; a roofline without data is off by a factor of two as a rule."""
PER_OCTAVE = 0.03
"""Growth with the distance to data, beyond the half octave that separates measured points."""


def relative_half_width(source: U8, distance_octaves: F64) -> F64:
    """Return the half-width of an 80 % interval around each step time, relative to it; NaN where there is no answer."""
    table = np.full(256, np.nan)
    for code, width in LOOKUP_HALF_WIDTH.items():
        table[int(code)] = width
    lookup = table[source] + PER_OCTAVE * np.maximum(distance_octaves - 0.5, 0.0)
    return np.hypot(MODEL_HALF_WIDTH, lookup)
