"""Two sets of measured tables against each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.plots.style import COLOURS, MUTED, colour, figure_of, legend, logarithmic, marker, tidy
from mfuroof.units import MS, US

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["table_ratio"]

ACROSS = 3
"""Panels side by side."""
MANY = 3000
"""Shapes of a panel from which marks are drawn smaller."""
Pairs = tuple[F64, F64, NDArray[np.str_]]


def table_ratio(families: Mapping[str, Pairs], labels: tuple[str, str]) -> Figure:
    """Draw how the times of two tables compare, one panel a family, one point a shape.

    Parameters
    ----------
    families
        Family to the times of A (n,), those of B (n,), and what each shape belongs to (n,): the shapes both have. [s]
    labels
        Names of A and B.

    Returns
    -------
    Figure
        The seven largest groups of a panel have colours of their own, the rest are "others"; the dashed line is the
        median ratio.

    Raises
    ------
    InputError
        No family, one without shapes, arrays of different lengths, or times that are not positive and finite.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    if not families:
        problems.add("families", "none", "at least one")
    for name, (a, b, group) in families.items():
        if not np.size(a) == np.size(b) == np.size(group) or not np.size(a):
            problems.add(name, f"{np.size(a)}, {np.size(b)}, {np.size(group)} values", "as many of each, one or more")
        elif not (np.isfinite(a) & np.isfinite(b) & (np.asarray(a) > 0) & (np.asarray(b) > 0)).all():
            problems.add(name, "times that are not positive and finite", "shapes that both tables have")
    problems.raise_if_any()
    across = min(ACROSS, len(families))
    down = -(-len(families) // across)
    figure, panels = figure_of(down, across, width=4.6 * across, height=3.8 * down)
    for ax, (name, (a, b, group)) in zip(panels, families.items(), strict=False):
        ratio = np.asarray(a) / np.asarray(b)
        unit, scale = ("us", US) if np.median(b) < MS else ("ms", MS)
        kinds = _largest(np.asarray(group).astype(str))
        for i, kind in enumerate(sorted(set(kinds.tolist()), key=lambda k: (k == "others", k))):
            rows = kinds == kind
            fill = MUTED if kind == "others" else colour(i)
            below = 1.0 if kind == "others" else 2.0  # what has a colour of its own is not covered
            size = 13 if ratio.size < MANY else 6
            style = {"s": size, "alpha": 0.55, "linewidths": 0, "rasterized": True, "marker": marker(i)}
            ax.scatter(np.asarray(b)[rows] / scale, ratio[rows], color=fill, label=kind, zorder=below, **style)
        middle = float(np.median(ratio))
        ax.axhline(1.0, color=MUTED, linewidth=1.0)
        ax.axhline(middle, color="black", linewidth=1.0, linestyle="--")
        reach = max(1.2, float(np.max(np.maximum(ratio, 1 / ratio))) * 1.1)
        ax.set_ylim(1 / reach, reach)
        logarithmic(ax)
        heading = f"{name}: median {middle:.3g}, n = {ratio.size:,}"
        tidy(ax, title=heading, xlabel=f"time of {labels[1]} [{unit}]", ylabel=f"{labels[0]} / {labels[1]}")
        if set(kinds) != {""}:
            legend(ax, markerscale=1.5)
    for ax in panels[len(families) :]:
        ax.set_visible(False)
    return figure


def _largest(groups: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return the groups with all but the largest called "others"."""
    names, counts = np.unique(groups, return_counts=True)
    if names.size <= len(COLOURS):
        return groups
    kept = names[np.argsort(-counts, kind="stable")[: len(COLOURS)]]
    return np.where(np.isin(groups, kept), groups, "others")
