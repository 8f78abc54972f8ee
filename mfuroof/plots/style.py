"""One look for every figure: colours that survive colour blindness, marks that survive a black-and-white print."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from mfuroof.errors import MfuroofError
from mfuroof.units import GB, MS, TB, TERA, US

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "HATCHES",
    "MARKERS",
    "MOST_INSIDE",
    "MUTED",
    "QUANTITY_MAP",
    "axes_of",
    "colour",
    "figure_of",
    "in_order",
    "legend",
    "logarithmic",
    "marker",
    "pyplot_of",
    "scale_of",
    "tidy",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito without its yellow, which a white page swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
"""Ten marks beside seven colours: the first seventy groups all differ, and neighbours differ twice."""
HATCHES = ("", "///", "", "\\\\\\", "", "xxx", "", "---")
"""Fillings of bars: every other one, so that neighbours differ on a print without colours."""
MUTED = "#8C8C8C"
"""What frames the data: reference lines, limits."""
MOST_INSIDE = 6
"""With more entries than these a legend belongs beside the axes."""
QUANTITY_MAP = "viridis"
"""Lightness grows evenly from end to end, for every kind of eye and on paper."""

CHARACTERS_PER_INCH = 12
"""Of a title, about: longer ones are wrapped."""

_SCALES = {"s": 1.0, "ms": MS, "us": US, "TB/s": TB, "GB/s": GB, "TFLOP/s": TERA, "TFLOP": TERA, "GB": GB}


def pyplot_of() -> Any:
    """Return matplotlib's pyplot.

    Raises
    ------
    MfuroofError
        matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise MfuroofError("plots need matplotlib: pip install 'mfuroof[plot]'") from error
    return pyplot


def figure_of(down: int, across: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """Return a new figure of ``width`` by ``height`` inches, and its axes row by row.

    Raises
    ------
    MfuroofError
        matplotlib is not installed.
    """
    pyplot = pyplot_of()
    figure, grid = pyplot.subplots(down, across, figsize=(width, height), layout="constrained", squeeze=False)
    return figure, list(grid.ravel())


def axes_of(ax: Axes | None, *, width: float = 6.4, height: float = 4.2) -> Axes:
    """Return the axes given, or those of a new figure of ``width`` by ``height`` inches.

    Raises
    ------
    MfuroofError
        matplotlib is not installed.
    """
    if ax is not None:
        return ax
    return figure_of(1, 1, width=width, height=height)[1][0]


def colour(i: int) -> str:
    """Return the colour of group ``i``."""
    return COLOURS[i % len(COLOURS)]


def scale_of(unit: str) -> float:
    """Return what values in base SI are divided by to be shown in ``unit``; 1 for a unit that has no scale."""
    return _SCALES.get(unit, 1.0)


def marker(i: int) -> str:
    """Return the mark of group ``i``."""
    return MARKERS[i % len(MARKERS)]


def logarithmic(ax: Axes, axis: Literal["x", "y", "both"] = "both") -> None:
    """Make axes logarithmic with plain numbers beside them: 1, 2, 5 in a decade, decades alone where there are many.

    Call it when the limits are final: they decide which numbers are written.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    for name in ("x", "y") if axis == "both" else (axis,):
        if name == "x":
            ax.set_xscale("log")
            line, (low, high) = ax.xaxis, ax.get_xlim()
        else:
            ax.set_yscale("log")
            line, (low, high) = ax.yaxis, ax.get_ylim()
        span = max(low, high) / min(low, high)
        subs = (1.0, 2.0, 5.0) if span < 300 else (1.0,)
        line.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]) if span < 5 else LogLocator(subs=subs, numticks=12))
        line.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}" if value >= 1e-4 else f"{value:g}"))
        line.set_minor_formatter(NullFormatter())
        if span < 5:
            line.set_minor_locator(NullLocator())


def tidy(
    ax: Axes,
    *,
    title: str = "",
    xlabel: str = "",
    ylabel: str = "",
    grid: Literal["both", "x", "y", ""] = "both",
) -> Axes:
    """Label the axes, take the upper and right frame away, and lay a faint grid behind the data."""
    characters = int(ax.get_position().width * ax.figure.get_size_inches()[0] * CHARACTERS_PER_INCH)
    ax.set_title(textwrap.fill(title, max(20, characters)), loc="left", fontsize="medium")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, axis=grid, color="#DDDDDD", linewidth=0.6)
    return ax


def legend(ax: Axes, *, beside: bool = False, **options: Any) -> None:
    """Add a legend, inside the axes or beside them."""
    if beside:
        options = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} | options
    frame = {"framealpha": 0.8, "edgecolor": "none", "fancybox": False}  # what lies beneath shines through
    ax.legend(fontsize="small", **(frame | options))


def in_order(values: Sequence[str]) -> list[str]:
    """Return the distinct values in the order in which they first appear."""
    return list(dict.fromkeys(values))
