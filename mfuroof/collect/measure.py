"""Measure one kernel: warm up, take samples, judge their spread, measure again where it is too wide."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfuroof.collect.backend import Backend, Kernel

__all__ = ["Effort", "Timing", "measure"]

MAX_CALLS = 2048
"""Calls of one sample at most: what one captured graph holds."""

LEAST_SAMPLES = 5


@dataclass(frozen=True)
class Effort:
    """How long a point is measured.

    Attributes
    ----------
    sample_s
        Calls are repeated until a sample takes this long, or all buffer sets were used once. [s]
    samples
        Samples, of which the median counts.
    point_s
        Time for all samples of a point; long kernels get fewer samples, but `LEAST_SAMPLES` at least. [s]
    max_spread
        Half the width of the middle two thirds of the samples over their median; a wider one is measured again.
        [fraction]
    retries
        How often.
    """

    sample_s: float = 2e-3
    samples: int = 15
    point_s: float = 0.5
    max_spread: float = 0.03
    retries: int = 2


@dataclass(frozen=True)
class Timing:
    """What was found.

    Attributes
    ----------
    latency_s
        Median time of one call. [s]
    spread
        As in `Effort.max_spread`. [fraction]
    samples, calls
        Samples, and calls in each of them.
    retries
        Measurements thrown away for their spread.
    method
        How the time was taken: ``graph`` (replays of a CUDA graph), ``events``, ``clock``.
    """

    latency_s: float
    spread: float
    samples: int
    calls: int
    retries: int
    method: str


def measure(backend: Backend, kernel: Kernel, effort: Effort) -> Timing:
    """Return the time of one call of ``kernel``; of several attempts the one with the least spread.

    Raises
    ------
    ArithmeticError
        The clock says that calls take no time, or less.
    """
    sampler = kernel.timed or (lambda calls, samples: backend.time(kernel, calls, samples))
    first = sampler(kernel.sets, 1).seconds[0]  # also warms up: libraries load, autotuning ends, buffers are touched
    if not first > 0.0 or not math.isfinite(first):
        raise ArithmeticError(f"{kernel.sets} calls took {first * kernel.sets} s")
    calls = int(min(max(math.ceil(effort.sample_s / first), kernel.sets), MAX_CALLS))
    sampler(calls, 1)
    affordable = int(effort.point_s / (first * calls))
    samples = max(min(effort.samples, affordable), min(effort.samples, LEAST_SAMPLES))
    best: Timing | None = None
    for attempt in range(effort.retries + 1):
        found = sampler(calls, samples)
        low, median, high = np.percentile(found.seconds, (100 / 6, 50, 500 / 6))
        if not median > 0.0:
            raise ArithmeticError(f"{calls} calls took {median * calls} s")
        spread = float((high - low) / (2.0 * median))
        if best is None or spread < best.spread:
            best = Timing(float(median), spread, len(found.seconds), calls, attempt, found.method)
        if spread <= effort.max_spread:
            break
    assert best is not None
    return best
