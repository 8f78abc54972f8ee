"""Whether intervals cover what they promise, on data that their width was not sized on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._types import F64
from mfuroof.errors import InputError, Problem

__all__ = ["Coverage", "Fold", "coverage", "sized_half_width"]


@dataclass(frozen=True)
class Fold:
    """One group judged by a width sized on the others.

    Attributes
    ----------
    count
        Its points.
    half_width
        Model half-width sized on the other groups. [fraction]
    covered
        Share of its points within the interval. [fraction]
    """

    count: int
    half_width: float
    covered: float


@dataclass(frozen=True)
class Coverage:
    """How much of the data intervals cover.

    Attributes
    ----------
    level
        Share they promise. [fraction]
    half_width
        Model half-width sized on everything. [fraction]
    as_given
        Share covered with the width that was given.
    in_sample
        With the one sized on everything.
    held_out
        Over all groups, each with a width sized on the others; groups count alike.
    folds
        By group.
    """

    level: float
    half_width: float
    as_given: float
    in_sample: float
    held_out: float
    folds: Mapping[str, Fold]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def text(self) -> str:
        """Return a table for people."""
        lines = [
            f"intervals of {self.level:.0%}: {self.as_given:.1%} covered as given, {self.in_sample:.1%} in sample "
            f"(model half-width {self.half_width:.1%}), {self.held_out:.1%} held out",
            f"{'left out':<44}{'points':>8}{'width':>8}{'covered':>9}",
        ]
        for name, fold in self.folds.items():
            lines.append(f"{name[:43]:<44}{fold.count:>8}{fold.half_width:>8.1%}{fold.covered:>9.1%}")
        return "\n".join(lines)


def coverage(
    predicted: ArrayLike,
    measured: ArrayLike,
    half_width: ArrayLike,
    groups: ArrayLike,
    *,
    model_half_width: float,
    level: float = 0.8,
) -> Coverage:
    """Re-size the model part of intervals without each group in turn, and count what the group's intervals cover.

    An interval reaches from ``predicted / (1 + h)`` to ``predicted * (1 + h)``, with h the model's part and the
    lookups' part in quadrature (`mfuroof.costs.uncertainty`).

    Parameters
    ----------
    predicted, measured
        Times (n,); points where either is missing or not positive are left out. [s]
    half_width
        Half-widths as given, relative (n,). [fraction]
    groups
        What is left out together (n,): a model, for instance.
    model_half_width
        The model's part of ``half_width``, which is replaced. [fraction]
    level
        Share of points that intervals are to cover, in (0, 1). [fraction]

    Returns
    -------
    Coverage
        Overall and by group; groups weigh alike in every size and share, so that one with many points does not decide.

    Raises
    ------
    InputError
        Lengths differ, or there are fewer than two groups of usable points.
    """
    p, m, h = (np.asarray(x, dtype=np.float64).ravel() for x in (predicted, measured, half_width))
    names = np.asarray(groups).astype(str).ravel()
    if not p.size == m.size == h.size == names.size:
        raise InputError(Problem("coverage", f"{p.size}, {m.size}, {h.size} and {names.size} values", "equal lengths"))
    usable = np.isfinite(p) & np.isfinite(m) & np.isfinite(h) & (p > 0) & (m > 0)
    p, m, h, names = p[usable], m[usable], h[usable], names[usable]
    distinct, index, count = np.unique(names, return_inverse=True, return_counts=True)
    if distinct.size < 2:
        raise InputError(Problem("groups", ", ".join(distinct) or "no usable points", "two groups or more"))
    weight = 1.0 / count[index.reshape(-1)]
    error = np.maximum(p / m, m / p) - 1.0
    lookup = np.sqrt(np.maximum(h**2 - model_half_width**2, 0.0))

    def covered(width: float, rows: Any) -> float:
        return float(np.average(error[rows] <= np.hypot(width, lookup[rows]), weights=weight[rows]))

    folds = {}
    for name in distinct:
        own = names == name
        width = sized_half_width(error[~own], lookup[~own], weight[~own], level)
        folds[str(name)] = Fold(int(own.sum()), width, covered(width, own))
    everything = np.ones(p.size, dtype=bool)
    width = sized_half_width(error, lookup, weight, level)
    held_out = float(np.mean([fold.covered for fold in folds.values()]))
    as_given = float(np.average(error <= h, weights=weight))
    return Coverage(level, width, as_given, covered(width, everything), held_out, folds)


def sized_half_width(error: F64, lookup: F64, weight: F64, level: float) -> float:
    """Return the smallest model half-width with which a weighted share ``level`` of the errors is covered."""
    needed = np.sqrt(np.maximum(error**2 - lookup**2, 0.0))
    order = np.argsort(needed, kind="stable")
    reached = np.cumsum(weight[order])
    return float(needed[order[np.searchsorted(reached, level * reached[-1] * (1.0 - 1e-12))]])
