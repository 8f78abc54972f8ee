"""Predictions against measurements, point by point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.plots.style import (
    MOST_INSIDE,
    MUTED,
    axes_of,
    colour,
    in_order,
    legend,
    logarithmic,
    marker,
    scale_of,
    tidy,
)
from mfuroof.validate.scores import score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["predicted_measured"]

BAND = 0.2
"""Half-width of the band around equality: what is within is within 20 %."""


def predicted_measured(
    measured: ArrayLike,
    predicted: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    ax: Axes | None = None,
    unit: str = "s",
    title: str = "",
) -> Axes:
    """Plot predictions over measurements on logarithmic axes, with the line where they are equal.

    Parameters
    ----------
    measured, predicted : array_like, shape (n,)
        In base units: seconds for times, whatever ``unit`` they are shown in. Rows where either is not a positive
        finite number cannot stand on a logarithmic axis; the title says how many were left out.
    groups : array_like, shape (n,)
        A label for each row; each group has its own mark, colour and error in the legend.
    ax
        Where to draw; a new figure when left out.
    unit
        Unit to show: ``"s"``, ``"ms"`` and ``"us"`` are scaled from seconds, any other is only written beside the axes.
    title
        What stands above.

    Returns
    -------
    Axes
        One collection per group, in the order of first appearance.

    Raises
    ------
    InputError
        The arrays do not have one shape, or no row can be drawn.
    MfuroofError
        matplotlib is not installed.
    """
    x, y = np.asarray(measured, np.float64).ravel(), np.asarray(predicted, np.float64).ravel()
    names = np.full(x.size, "") if groups is None else np.asarray(groups).astype(str).ravel()
    problems = Problems()
    if y.size != x.size:
        problems.add("predicted", f"{y.size} values", f"{x.size}, as measured has")
    if names.size != x.size:
        problems.add("groups", f"{names.size} labels", f"{x.size}, as measured has")
    problems.raise_if_any()
    drawn = np.isfinite(x) & np.isfinite(y) & (x > 0) & (y > 0)
    if not drawn.any():
        problems.add("measured and predicted", "no row where both are positive and finite", "at least one")
    problems.raise_if_any()
    rows_of = {name: drawn & (names == name) for name in in_order(names[drawn].tolist())}
    labels = {name: _label(name, x[rows], y[rows]) for name, rows in rows_of.items()}
    beside = 0.08 * max(map(len, labels.values())) if len(labels) > MOST_INSIDE else 0.0
    ax = axes_of(ax, width=5.2 + beside, height=5.0)
    scale = scale_of(unit)
    low, high = min(x[drawn].min(), y[drawn].min()) / scale / 1.4, max(x[drawn].max(), y[drawn].max()) / scale * 1.4
    ends = np.array([low, high])
    ax.fill_between(
        ends, ends * (1 - BAND), ends * (1 + BAND), color=MUTED, alpha=0.18, linewidth=0, label=f"within {BAND:.0%}"
    )
    ax.plot(ends, ends, color=MUTED, linewidth=1.0)
    for i, (name, label) in enumerate(labels.items()):
        rows = rows_of[name]
        style = {"marker": marker(i), "color": colour(i), "alpha": 0.7, "linewidths": 0}
        ax.scatter(x[rows] / scale, y[rows] / scale, s=18, label=label, **style)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    logarithmic(ax)
    ax.set_aspect("equal")
    missing = int(x.size - drawn.sum())
    left_out = f"{missing} of {x.size} rows not shown" if missing else ""
    heading = ", ".join(text for text in (title, left_out) if text)
    tidy(ax, title=heading, xlabel=f"measured [{unit}]", ylabel=f"predicted [{unit}]")
    legend(ax, beside=beside > 0, **({} if beside else {"loc": "upper left"}))
    return ax


def _label(name: str, measured: F64, predicted: F64) -> str:
    error = score(predicted, measured).mean
    return f"{name + ': ' if name else ''}{error:.1%} mean error, {measured.size} row{'s' * (measured.size != 1)}"
