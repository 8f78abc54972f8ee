"""Piecewise-linear time curves: what one operation costs as a function of tokens (or sequences)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mfuroof._types import F64, U8, freeze
from mfuroof.core.isotonic import isotonic
from mfuroof.core.sources import Source

__all__ = ["MAX_TOKENS", "SPIKE", "Curve", "Op", "Resource", "affine_curve", "fastest", "without_spikes"]

MAX_TOKENS = 32_768
"""Last breakpoint of a bound curve, the largest m that tables hold; beyond it the last slope goes on."""

Resource = Literal["compute", "memory", "comm", "overhead"]


SPIKE = 1.1
"""A time this far above one of a larger shape is an accident of its measurement: noise only adds time, and tile effects
stay below. Single shots reach 20 times (GEMM) and 190 times (latent attention); regression alone smears them over their
neighbours: the 90th percentile of the GEMM transfer error is 15 % with them and 12 % without."""


def without_spikes(time_s: F64) -> F64:
    """Return times with those that stand more than `SPIKE` above a later one brought down to that; NaN are gaps."""
    later = np.fmin.accumulate(time_s[::-1])[::-1]
    return np.minimum(time_s, SPIKE * later)


@dataclass(frozen=True, eq=False)
class Curve:
    """Time of one kernel call over its count axis, linear between knots.

    Attributes
    ----------
    knots
        Ascending counts (k,). [tokens or sequences]
    time_s
        Times at the knots (k,). [s]
    beyond_s
        Slope above the last knot. [s per count]
    source
        `Source` code of each knot (k,); between knots it is at least INTERPOLATED.
    measured
        Whether the knots are data; an analytic curve takes part in no source code and has no distance to data.
    """

    knots: F64
    time_s: F64
    beyond_s: float
    source: U8
    measured: bool = True

    def scaled(self, factor: float) -> Curve:
        """Return the curve with all times multiplied."""
        return replace(self, time_s=freeze(self.time_s * factor), beyond_s=self.beyond_s * factor)

    def substituted(self) -> Curve:
        """Return the curve marked as standing in for another."""
        return replace(self, source=np.maximum(self.source, np.uint8(Source.SUBSTITUTED)))

    def rising(self) -> Curve:
        """Return the curve without falls: spikes capped, then isotonic regression. NaN stays."""
        if not np.isfinite(self.time_s).all():
            return self
        time = np.empty(self.time_s.size)
        isotonic(without_spikes(self.time_s), time)
        return replace(self, time_s=freeze(time))

    def at(self, counts: F64) -> F64:
        """Return times at ``counts``; below the first knot its value holds."""
        inside = np.interp(counts, self.knots, self.time_s)
        return inside + self.beyond_s * np.maximum(counts - self.knots[-1], 0.0)

    def source_at(self, counts: F64) -> U8:
        """Return the `Source` code at each of ``counts``."""
        above = np.searchsorted(self.knots, counts, side="left")
        right = np.minimum(above, self.knots.size - 1)
        left = np.maximum(right - 1, 0)
        between = np.maximum(np.maximum(self.source[left], self.source[right]), np.uint8(Source.INTERPOLATED))
        code = np.where(self.knots[right] == counts, self.source[right], between)
        beyond = np.maximum(self.source[-1], np.uint8(Source.EXTRAPOLATED))
        return np.where(counts > self.knots[-1], beyond, code).astype(np.uint8)

    def distance_at(self, counts: F64) -> F64:
        """Return the distance to the nearest knot. [octaves]"""
        right = np.minimum(np.searchsorted(self.knots, counts), self.knots.size - 1)
        left = np.maximum(right - 1, 0)
        gap = np.abs(np.log2(np.maximum(counts, 1.0)[:, None] / np.stack([self.knots[left], self.knots[right]], 1)))
        return gap.min(axis=1)


def affine_curve(fixed_s: float, per_count_s: float) -> Curve:
    """Return the curve of an operation whose time is known in closed form."""
    knots = np.array([1.0, MAX_TOKENS])
    return Curve(
        freeze(knots),
        freeze(fixed_s + per_count_s * knots),
        per_count_s,
        freeze([Source.ROOFLINE] * 2, np.uint8),
        measured=False,
    )


def fastest(curves: list[Curve]) -> Curve:
    """Return the lower envelope of curves on all their knots."""
    knots = np.unique(np.concatenate([c.knots for c in curves]))
    times = np.stack([c.at(knots) for c in curves])
    codes = np.stack([c.source_at(knots) for c in curves])
    best = np.argmin(times, axis=0)
    each = np.arange(knots.size)
    return Curve(
        freeze(knots), freeze(times[best, each]), curves[int(best[-1])].beyond_s, freeze(codes[best, each], np.uint8)
    )


@dataclass(frozen=True, eq=False)
class Op:
    """One operation of a forward pass on one GPU, with how often it runs.

    Attributes
    ----------
    name
        Component it is reported under.
    axis
        What its curve depends on: the tokens of a step, or the sequences that emit a token.
    count
        Calls a step (layers, mostly).
    curve
        Time of one call.
    flops_per_count, peak_flops_per_s
        Useful work of one call, per token or sequence [FLOP], and the rate of the unit that does it [FLOP/s].
    fixed_bytes, bytes_per_count
        HBM traffic of one call: what is read whatever the count (weights), and the rest. [bytes]
    resource
        What its time is charged to; None decides between compute and memory by the roofline.
    """

    name: str
    axis: Literal["tokens", "sequences"]
    count: float
    curve: Curve
    flops_per_count: float = 0.0
    peak_flops_per_s: float = 1.0
    fixed_bytes: float = 0.0
    bytes_per_count: float = 0.0
    resource: Resource | None = None

    def compute_time_s(self, counts: F64) -> F64:
        """Return the time one call takes at the peak rate. [s]"""
        return self.flops_per_count * counts / self.peak_flops_per_s

    def bytes_at(self, counts: F64) -> F64:
        """Return the HBM traffic of one call; nothing moves where there is nothing to do. [bytes]"""
        return self.fixed_bytes * (counts > 0) + self.bytes_per_count * counts

    def memory_time_s(self, counts: F64, hbm_bytes_per_s: float) -> F64:
        """Return the time one call takes at the HBM bandwidth. [s]"""
        return self.bytes_at(counts) / hbm_bytes_per_s

    def roofline_time_s(self, counts: F64, hbm_bytes_per_s: float) -> F64:
        """Return the time no call can beat. [s]"""
        return np.maximum(self.compute_time_s(counts), self.memory_time_s(counts, hbm_bytes_per_s))
