"""Leave-one-out errors of interpolation rules: each measured time against what its neighbours on a line predict."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof.tables.quality_lines import Lines

__all__ = ["RULES", "RuleError", "leave_one_out"]

RULES = ("floor", "nearest", "linear", "loglog", "sqrt", "affine_rate")
"""``floor`` and ``nearest`` hold the utilisation of the point below, and of the nearer one by ratio; ``linear`` and
``sqrt`` blend the time and its root; ``loglog`` blends logarithms; ``affine_rate`` blends the time per token beyond a
launch, which is the time of the shortest point of the line."""


@dataclass(frozen=True)
class RuleError:
    """Absolute relative errors of one rule along one axis; the point itself was left out.

    Attributes
    ----------
    count
        Points with a neighbour on both sides.
    mean, median, p90
        Of |predicted / measured - 1|. [fraction]
    """

    count: int
    mean: float
    median: float
    p90: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def leave_one_out(of: Lines, exponent: float) -> dict[str, RuleError]:
    """Return the error of each of `RULES` over every point between two others; no rules where there is none.

    Leaving a point out doubles the gap of the grid, so the errors are upper bounds; what they rank is the rules.
    """
    at = of.inner
    if not at.size:
        return {}
    found = {}
    for rule, predicted in _predictions(of, exponent).items():
        error = np.abs(predicted / of.time_s[at] - 1.0)
        median, p90 = np.percentile(error, (50, 90))
        found[rule] = RuleError(int(at.size), float(error.mean()), float(median), float(p90))
    return found


def _predictions(of: Lines, exponent: float) -> dict[str, F64]:
    at = of.inner
    x, x1, x2 = of.x[at], of.x[at - 1], of.x[at + 1]
    t1, t2 = of.time_s[at - 1], of.time_s[at + 1]
    below, above = t1 * (x / x1) ** exponent, t2 * (x / x2) ** exponent
    u = (x - x1) / (x2 - x1)
    v = np.log(x / x1) / np.log(x2 / x1)
    shortest = of.time_s[np.maximum.accumulate(np.where(of.start, np.arange(of.x.size), 0))][at]
    launch = np.minimum(np.minimum(shortest, t1), t2)
    rate = (1.0 - u) * (t1 - launch) / x1 + u * (t2 - launch) / x2
    return {
        "floor": below,
        "nearest": np.where(x / x1 <= x2 / x, below, above),
        "linear": t1 + u * (t2 - t1),
        "loglog": t1 * (t2 / t1) ** v,
        "sqrt": (np.sqrt(t1) + u * (np.sqrt(t2) - np.sqrt(t1))) ** 2,
        "affine_rate": launch + x * rate,
    }
