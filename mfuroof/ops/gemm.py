"""GEMM times over tokens at any (n, k), from measured sites.

A table holds a curve over m at each of several hundred (n, k) sites, most of a grid. A measured site is read as it is.
Any other shape borrows the *utilisation* (roofline time / measured time) of the sites around it at the same m and turns
it back into time with its own roofline. Between grid lines the logarithm of the utilisation is bilinear in the
logarithms of n and k: leaving whole lines out of 47 tables, that errs by 4.3 % in the median (90th percentile 16 %),
where the four nearest sites weighted by 1/distance^2 err by 6.6 % (26 %). The latter is kept for what no four corners
surround, and for the peer that uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfuroof._types import F64, I64, freeze
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.ops.curves import MAX_TOKENS, Curve, without_spikes
from mfuroof.ops.rooflines import GemmRoofline

__all__ = ["REACH_OCTAVES", "GemmTable"]

REACH_OCTAVES = 2.0
"""Farthest site that may lend its utilisation; beyond it there is no answer, except past the grid on one axis."""


@dataclass(frozen=True, eq=False)
class GemmTable:
    """Measured GEMMs of one dtype: Y[m, n] = X[m, k] W[k, n].

    Attributes
    ----------
    label
        What the table is, for error texts.
    n, k, m, latency_s
        Rows (r,), sorted by n, then k, then m. [features, features, tokens, s]
    measured_on
        Roofline of the GPU and dtype the rows are of.
    wanted
        Roofline of the GPU and dtype that is asked for; where it is another one, the utilisation is held.
    stand_in
        Another GPU or dtype was measured than is asked for: everything read is a substitution.
    despike
        Bring a point that stands more than `mfuroof.ops.curves.SPIKE` above one at a larger m down to that.
    """

    label: str
    n: I64
    k: I64
    m: I64
    latency_s: F64
    measured_on: GemmRoofline
    wanted: GemmRoofline
    stand_in: bool = False
    despike: bool = False

    @cached_property
    def _starts(self) -> I64:
        change = (np.diff(self.n) != 0) | (np.diff(self.k) != 0)
        return np.concatenate([[0], np.flatnonzero(change) + 1, [self.n.size]])

    @cached_property
    def _sites(self) -> tuple[F64, F64]:
        first = self._starts[:-1]
        return self.n[first].astype(np.float64), self.k[first].astype(np.float64)

    def curve(self, n: int, k: int, neighbours: int = 0) -> Curve:
        """Return the time over m of a weight matrix of ``n`` out and ``k`` in features.

        ``neighbours`` sites nearest to an unmeasured shape are blended; 0 takes the cell of the grid around it.

        Raises
        ------
        MissingTableError
            The shape is farther than `REACH_OCTAVES` from every measured site, and not merely past one axis' end.
        """
        site_n, site_k = self._sites
        distance = np.hypot(np.log2(site_n / n), np.log2(site_k / k))
        nearest = int(np.argmin(distance))
        if distance[nearest] == 0.0:
            m, time = self._site_curve(nearest)
            return self._finish(m, time, n, k, Source.EXACT)
        if distance[nearest] > REACH_OCTAVES:
            past_n, past_k = n > site_n.max() or n < site_n.min(), k > site_k.max() or k < site_k.min()
            if past_n == past_k:
                raise MissingTableError(
                    f"GEMM n={n}, k={k} in {self.label}",
                    [f"{site_n.size} sites, n {int(site_n.min())}..{int(site_n.max())}, k {int(site_k.min())}.."
                     f"{int(site_k.max())}; the nearest is {distance[nearest]:.1f} octaves away"],
                    'missing="roofline" prices it by its roofline.',
                )
        corners, weight = self._corners(n, k) if neighbours == 0 else (np.empty(0, int), np.empty(0))
        geometric = corners.size > 0
        if not geometric:
            corners, weight = self._nearest(distance, neighbours or 4)
        curves = [self._site_curve(int(i)) for i in corners]
        m = np.unique(np.concatenate([c[0] for c in curves]))
        blend = np.zeros(m.size)
        for (knots, time), i, w in zip(curves, corners, weight, strict=True):
            utilisation = self.measured_on.time_s(m, site_n[i], site_k[i]) / np.interp(m, knots, time)
            blend += w * (np.log(utilisation) if geometric else utilisation)
        utilisation = np.exp(blend) if geometric else blend
        return self._finish(m, self.measured_on.time_s(m, n, k) / utilisation, n, k, Source.INTERPOLATED)

    def _corners(self, n: float, k: float) -> tuple[I64, F64]:
        """Return the measured sites at the corners of the grid cell of (n, k), and their bilinear weights (sum 1).

        Past the grid's end the last line counts; a corner that was not measured leaves its weight to the others.
        """
        site_n, site_k = self._sites
        sites, weights = [], []
        for row, share_n in _around(np.unique(site_n), n):
            for column, share_k in _around(np.unique(site_k), k):
                here = np.flatnonzero((site_n == row) & (site_k == column))
                if here.size and share_n * share_k > 0:
                    sites.append(int(here[0]))
                    weights.append(share_n * share_k)
        total = sum(weights)
        return np.array(sites, np.int64), np.array(weights) / total if total else np.empty(0)

    def _nearest(self, distance: F64, neighbours: int) -> tuple[I64, F64]:
        """Return the nearest sites within reach and their weights, the inverse squares of their distances (sum 1)."""
        order = np.argsort(distance, kind="stable")[:neighbours]
        near = order[distance[order] <= REACH_OCTAVES]
        near = near if near.size else order[:1]
        weight = 1.0 / distance[near] ** 2
        return near, weight / weight.sum()

    def _site_curve(self, site: int) -> tuple[F64, F64]:
        rows = slice(self._starts[site], self._starts[site + 1])
        m = self.m[rows].astype(np.float64)
        floor = self.measured_on.time_s(m, *(float(axis[site]) for axis in self._sites))
        time = self.latency_s[rows]
        if self.despike:
            time = without_spikes(time)
        return m, np.maximum(time, floor)  # weights hot in L2 can beat HBM, which no step can

    def _finish(self, m: F64, time: F64, n: int, k: int, source: Source) -> Curve:
        if self.stand_in:
            time = time * (self.wanted.time_s(m, n, k) / self.measured_on.time_s(m, n, k))
            source = Source.SUBSTITUTED
        roofline = self.wanted.time_s(m[-1] * np.array([1.0, 2.0]), n, k)
        slope = (roofline[1] - roofline[0]) * time[-1] / (roofline[0] * m[-1])  # utilisation of the last point held
        keep = m <= MAX_TOKENS
        return Curve(freeze(m[keep]), freeze(time[keep]), float(slope), freeze([source] * int(keep.sum()), np.uint8))


def _around(lines: F64, x: float) -> tuple[tuple[float, float], ...]:
    """Return the grid lines on both sides of ``x`` with their shares, linear in the logarithm; one past the ends."""
    above = int(np.searchsorted(lines, x))
    if above == 0 or above == lines.size or lines[above] == x:
        return ((float(lines[min(above, lines.size - 1)]), 1.0),)
    low, high = float(lines[above - 1]), float(lines[above])
    share = float(np.log(x / low) / np.log(high / low))
    return ((low, 1.0 - share), (high, share))
