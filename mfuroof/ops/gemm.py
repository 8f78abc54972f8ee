"""GEMM times over tokens at any (n, k), from measured sites.

A table holds a curve over m at each of several hundred scattered (n, k) sites. A measured site is read as it is. Any
other shape borrows the *utilisation* (roofline time / measured time) of its nearest sites at the same m, weighted by
the inverse square of their distance in octaves, and turns it back into time with its own roofline. Leaving measured
sites out, that errs by 3-4 % (median); see docs/architecture.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfuroof._types import F64, I64, freeze
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.ops.curves import MAX_TOKENS, Curve
from mfuroof.ops.rooflines import GemmRoofline

__all__ = ["REACH_OCTAVES", "GemmTable"]

SPIKE = 1.15
"""A time this far above both its neighbours in m is an accident of its measurement: no kernel is slower at 7 rows than
at both 6 and 8 by more. Such points are single (a 45 us between two of 22 us), and noise only ever adds time."""
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
        Bring a point that stands more than `SPIKE` above both its neighbours down to the larger of them.
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

    def curve(self, n: int, k: int, neighbours: int = 4) -> Curve:
        """Return the time over m of a weight matrix of ``n`` out and ``k`` in features.

        Raises
        ------
        MissingTableError
            The shape is farther than `REACH_OCTAVES` from every measured site, and not merely past one axis' end.
        """
        site_n, site_k = self._sites
        distance = np.hypot(np.log2(site_n / n), np.log2(site_k / k))
        nearest = np.argsort(distance, kind="stable")[:neighbours]
        if distance[nearest[0]] == 0.0:
            m, time = self._site_curve(int(nearest[0]))
            return self._finish(m, time, n, k, Source.EXACT)
        near = nearest[distance[nearest] <= REACH_OCTAVES]
        if near.size == 0:
            past_n, past_k = n > site_n.max() or n < site_n.min(), k > site_k.max() or k < site_k.min()
            if past_n == past_k:
                raise MissingTableError(
                    f"GEMM n={n}, k={k} in {self.label}",
                    [f"{site_n.size} sites, n {int(site_n.min())}..{int(site_n.max())}, k {int(site_k.min())}.."
                     f"{int(site_k.max())}; the nearest is {distance[nearest[0]]:.1f} octaves away"],
                    'missing="roofline" prices it by its roofline.',
                )
            near = nearest[:1]
        curves = [self._site_curve(int(i)) for i in near]
        m = np.unique(np.concatenate([c[0] for c in curves]))
        weight = 1.0 / distance[near] ** 2
        utilisation = np.zeros(m.size)
        for (knots, time), i, w in zip(curves, near, weight, strict=True):
            utilisation += w * self.measured_on.time_s(m, site_n[i], site_k[i]) / np.interp(m, knots, time)
        utilisation /= weight.sum()
        return self._finish(m, self.measured_on.time_s(m, n, k) / utilisation, n, k, Source.INTERPOLATED)

    def _site_curve(self, site: int) -> tuple[F64, F64]:
        rows = slice(self._starts[site], self._starts[site + 1])
        m = self.m[rows].astype(np.float64)
        floor = self.measured_on.time_s(m, *(float(axis[site]) for axis in self._sites))
        time = self.latency_s[rows]
        if self.despike and time.size > 2:
            beside = np.maximum(np.concatenate([time[1:2], time[:-1]]), np.concatenate([time[1:], time[-1:]]))
            time = np.where(time > SPIKE * beside, beside, time)
        return m, np.maximum(time, floor)  # weights hot in L2 can beat HBM, which no step can

    def _finish(self, m: F64, time: F64, n: int, k: int, source: Source) -> Curve:
        if self.stand_in:
            time = time * (self.wanted.time_s(m, n, k) / self.measured_on.time_s(m, n, k))
            source = Source.SUBSTITUTED
        roofline = self.wanted.time_s(m[-1] * np.array([1.0, 2.0]), n, k)
        slope = (roofline[1] - roofline[0]) * time[-1] / (roofline[0] * m[-1])  # utilisation of the last point held
        keep = m <= MAX_TOKENS
        return Curve(freeze(m[keep]), freeze(time[keep]), float(slope), freeze([source] * int(keep.sum()), np.uint8))
