"""Single measurements that cannot be right: falls between neighbours, and rows that all their neighbours contradict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import F64, I64
from mfuroof.tables.quality_lines import Bounds, Lines

__all__ = ["FALL", "OUTLIER", "STEEP", "Falls", "Outliers", "falls", "outliers"]

FALL = 0.02
"""Fall of the latency with more work from which it counts: repeated measurements differ by as much."""
STEEP = 0.15
"""Fall that no tile size explains."""
OUTLIER = 1.5
"""Factor by which a row must miss what its neighbours imply, on every axis that can judge it."""


@dataclass(frozen=True, eq=False)
class Falls:
    """Neighbours of which the larger shape is the faster one, along one axis.

    Attributes
    ----------
    pairs
        Neighbours compared.
    any
        How many of them fall at all.
    before, after
        Rows of those that fall by more than `FALL`, the smaller and the larger shape, the worst first.
    size
        By how much (n,), ``1 - after / before``. [fraction]
    """

    pairs: int
    any: int
    before: I64
    after: I64
    size: F64

    @property
    def worst(self) -> float:
        """The largest fall; 0 where there is none."""
        return float(self.size[0]) if self.size.size else 0.0


def falls(of: Lines) -> Falls:
    """Return where the latency falls as work grows."""
    left = of.pairs
    size = 1.0 - of.time_s[left + 1] / of.time_s[left]
    found = np.flatnonzero(size > FALL)
    found = found[np.argsort(-size[found], kind="stable")]
    at = left[found]
    return Falls(left.size, int((size > 0.0).sum()), of.row[at], of.row[at + 1], size[found])


@dataclass(frozen=True, eq=False)
class Outliers:
    """Rows that miss what their neighbours imply.

    Attributes
    ----------
    row
        Rows of the table, the worst first (n,).
    excess
        Time over the most that neighbours allow where a row is too slow, the least over the time where it is too
        fast; at least `OUTLIER` (n,).
    slow
        Whether a row is too slow, otherwise too fast (n,).
    low_s, high_s
        What the neighbours allow on the axis that forgives most (n,). [s]
    """

    row: I64
    excess: F64
    slow: NDArray[np.bool_]
    low_s: F64
    high_s: F64


def outliers(time_s: F64, lined: Sequence[Lines], bounded: Mapping[str, Bounds]) -> Outliers:
    """Return the rows that every axis calls wrong.

    A row counts if it misses the range of its neighbours by `OUTLIER` on each axis where they give one, and lies
    between two neighbours on one of them: the step of a tile or a change of kernel stands out along one axis and
    goes on along the others, a measurement that was disturbed stands out along all. Of two neighbours, one too
    slow and the other too fast, the one that misses more is the culprit.

    Parameters
    ----------
    time_s
        Latencies (rows,). [s]
    lined, bounded
        Lines of the table along each axis, and what they imply by axis.
    """
    count = time_s.size
    judged, inside = np.zeros(count, dtype=bool), np.zeros(count, dtype=bool)
    slow, fast = np.full(count, np.inf), np.full(count, np.inf)
    low, high = np.full(count, np.nan), np.full(count, np.nan)
    for bounds in bounded.values():
        known = np.isfinite(bounds.low_s)
        over = np.where(known, time_s / bounds.high_s, np.inf)
        under = np.where(known, bounds.low_s / time_s, np.inf)
        milder = known & (np.maximum(over, under) < np.maximum(slow, fast))
        low[milder], high[milder] = bounds.low_s[milder], bounds.high_s[milder]
        slow, fast = np.minimum(slow, over), np.minimum(fast, under)
        judged |= known
        inside |= known & bounds.two_sided
    wrong = judged & inside
    slow, fast = (np.where(wrong & (size >= OUTLIER), size, 0.0) for size in (slow, fast))
    keep = (slow > 0.0) | (fast > 0.0)
    for line in lined:
        left, right = line.row[line.pairs], line.row[line.pairs + 1]
        for one, other in ((left, right), (right, left)):
            keep[one[(slow[one] > 0.0) & (fast[other] > slow[one])]] = False
            keep[one[(fast[one] > 0.0) & (slow[other] > fast[one])]] = False
    rows = np.flatnonzero(keep)
    excess = np.maximum(slow, fast)[rows]
    order = np.argsort(-excess, kind="stable")
    rows, excess = rows[order], excess[order]
    return Outliers(rows, excess, slow[rows] > 0.0, low[rows], high[rows])
