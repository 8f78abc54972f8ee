"""Choices: what nothing else beats, and where one line crosses another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

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
from mfuroof.sweep import Pareto

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["crossover", "crossovers", "pareto"]

Better = Literal["higher", "lower"]


def pareto(
    x: ArrayLike,
    y: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    better: tuple[Better, Better] = ("higher", "higher"),
    xlabel: str = "",
    ylabel: str = "",
    log: bool = True,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw candidates, and through those of each group that nothing beats in both respects, a line.

    Parameters
    ----------
    x, y : array_like, shape (n,)
        Two figures of each candidate; where either is not finite (not positive on logarithmic axes), it is left out.
    groups : array_like, shape (n,)
        A label for each; every group has a front of its own.
    better
        Which direction of x and of y is the better one.
    xlabel, ylabel
        What they are, with their units.
    log
        Logarithmic axes.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        For each group a collection of its candidates and a line of its front, in the order of first appearance.

    Raises
    ------
    InputError
        The arrays do not have one shape, or nothing can be drawn.
    MfuroofError
        matplotlib is not installed.
    """
    a, b = np.asarray(x, np.float64).ravel(), np.asarray(y, np.float64).ravel()
    names = np.full(a.size, "") if groups is None else np.asarray(groups).astype(str).ravel()
    problems = Problems()
    if not a.size == b.size == names.size:
        problems.add("x, y, groups", f"{a.size}, {b.size}, {names.size} values", "as many of each")
        problems.raise_if_any()
    drawn = np.isfinite(a) & np.isfinite(b) & ((a > 0) & (b > 0) | (not log))
    if not drawn.any():
        problems.add("x and y", "no candidate that can be drawn", "at least one")
    problems.raise_if_any()
    ax = axes_of(ax)
    kinds = in_order(names[drawn].tolist())
    for i, name in enumerate(kinds):
        rows = drawn & (names == name)
        ax.scatter(a[rows], b[rows], s=9, color=colour(i), alpha=0.35, linewidths=0)
        best = front(a[rows], b[rows], better)
        style = {"color": colour(i), "marker": marker(i), "markersize": 5, "linewidth": 1.3}
        ax.plot(a[rows][best], b[rows][best], label=name, **style)
    if log:
        logarithmic(ax)
    tidy(ax, title=title, xlabel=xlabel, ylabel=ylabel)
    if kinds != [""]:
        legend(ax, beside=len(kinds) > MOST_INSIDE)
    return ax


def front(x: F64, y: F64, better: tuple[Better, Better]) -> np.ndarray:
    """Return the positions that no other candidate beats in one respect without losing in the other, by x."""
    u, v = x if better[0] == "higher" else -x, y if better[1] == "higher" else -y
    chosen = Pareto({"x": "max", "y": "max"}).chosen(None, 1, [u, v], np.arange(x.size))
    return chosen[np.argsort(x[chosen], kind="stable")]


def crossover(
    x: ArrayLike,
    times_s: Mapping[str, ArrayLike],
    *,
    xlabel: str = "",
    unit: str = "ms",
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw times of alternatives and mark where each of the later ones crosses the first.

    Parameters
    ----------
    x : array_like, shape (n,)
        Positive, ascending: a batch size, a context.
    times_s
        Name to times (n,); the first is what the others are compared with. [s]
    xlabel
        What ``x`` is, with its unit.
    unit
        ``"s"``, ``"ms"`` or ``"us"``.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        One line for each alternative; a vertical line at every crossing.

    Raises
    ------
    InputError
        ``x`` is not ascending and positive, or a curve does not have its length.
    MfuroofError
        matplotlib is not installed.
    """
    at = np.asarray(x, np.float64).ravel()
    curves = {name: np.asarray(values, np.float64).ravel() for name, values in times_s.items()}
    problems = Problems()
    if at.size < 2 or (at <= 0).any() or (np.diff(at) <= 0).any():
        problems.add("x", f"{at.size} values", "two or more positive ones, ascending")
    for name, values in curves.items():
        if values.size != at.size:
            problems.add(name, f"{values.size} values", f"{at.size}, as x has")
    if not curves:
        problems.add("times_s", "no curve", "at least one")
    problems.raise_if_any()
    ax = axes_of(ax)
    scale = scale_of(unit)
    base, *others = curves
    for i, (name, values) in enumerate(curves.items()):
        style = {"color": colour(i), "marker": marker(i), "markersize": 4, "linewidth": 1.3}
        ax.plot(at, values / scale, markevery=max(1, at.size // 16), label=name, **style)
    low = min(float(np.nanmin(values)) for values in curves.values()) / scale
    ax.set_ylim(bottom=low / 1.6)
    found = [(where, name) for name in others for where in crossovers(at, curves[base], curves[name])]
    for i, (where, name) in enumerate(found):
        ax.axvline(where, color=MUTED, linewidth=1.0, linestyle="--")
        level = ax.get_xaxis_transform()  # one line of text above the other
        style = {"xycoords": level, "textcoords": "offset points", "ha": "right", "size": 8, "color": "#444444"}
        ax.annotate(f"{name} = {base} at {where:,.0f}", (where, 0.03 + 0.06 * i), (-4, 0), **style)
    ax.set_xlim(at[0], at[-1])
    logarithmic(ax)
    tidy(ax, title=title, xlabel=xlabel, ylabel=f"time [{unit}]")
    legend(ax, beside=len(curves) > MOST_INSIDE)
    return ax


def crossovers(x: F64, base: F64, other: F64) -> list[float]:
    """Return where ``other`` goes from one side of ``base`` to the other, between points by straight lines in log x."""
    gap = np.log(other / base)
    at = np.flatnonzero((gap[1:] > 0) != (gap[:-1] > 0))
    weight = gap[at] / (gap[at] - gap[at + 1])
    return [float(v) for v in np.exp(np.log(x[at]) + weight * (np.log(x[at + 1]) - np.log(x[at])))]
