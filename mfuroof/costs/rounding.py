"""How the peers round a step time; our own times are never rounded."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from mfuroof._boundary import choice
from mfuroof._types import F64, I64, ArrayLike
from mfuroof.units import US

__all__ = ["ROUNDINGS", "peer_step_us"]

ROUNDINGS = ("blis", "blis_step", "blis_mfu")
MAX_INT64 = 2**63 - 1


def peer_step_us(step_time_s: ArrayLike, rounding: Literal["blis", "blis_step", "blis_mfu"]) -> I64:
    """Return step times in whole microseconds as a peer would report them.

    Parameters
    ----------
    step_time_s : array_like, shape (...)
        Unrounded step times. [s]
    rounding
        ``"blis"``: its roofline function, truncated towards zero; ``"blis_step"``: the same behind its engine, at
        least 1; ``"blis_mfu"``: its MFU-table roofline, half away from zero, at least 1.

    Returns
    -------
    ndarray of int64, shape (...)
        NaN, infinities and what does not fit become 2**63 - 1. [us]

    Raises
    ------
    UnknownNameError
        No such rounding.

    Examples
    --------
    >>> peer_step_us([0.0, 1.5e-6, 2.5e-3], "blis").tolist(), peer_step_us([0.0, 1.5e-6], "blis_mfu").tolist()
    ([0, 1, 2500], [1, 2])
    """
    rule = choice("rounding", rounding, ROUNDINGS)
    scaled: F64 = np.asarray(step_time_s, dtype=np.float64) * (1.0 / US)
    whole = np.floor(scaled + 0.5) if rule == "blis_mfu" else np.trunc(scaled)
    fits = np.isfinite(scaled) & (np.abs(scaled) < math.ldexp(1.0, 63))
    out = np.where(fits, np.where(fits, whole, 0.0).astype(np.int64), MAX_INT64)
    return out if rule == "blis" else np.maximum(out, 1)
