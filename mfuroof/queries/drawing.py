"""A plain picture of a query's answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfuroof.errors import MfuroofError

if TYPE_CHECKING:
    from mfuroof.queries.result import QueryResult

__all__ = ["draw"]

_MARKERS = "osD^v<>Pp*"
_MARKS = 20
"""Marks on a line, about."""
_LOG_FROM = 50.0
"""Largest over smallest value from which on an axis is logarithmic."""


def draw(result: QueryResult, ax: Any = None) -> Any:
    """Draw the answer of a query on matplotlib axes and return them; see `QueryResult.plot`."""
    if ax is None:
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise MfuroofError("plot needs matplotlib: pip install 'mfuroof[plot]'") from error
        _, ax = plt.subplots(layout="constrained")
    if result.kind == "bars":
        _bars(result, ax)
    else:
        _lines(result, ax)
    return ax


def _bars(result: QueryResult, ax: Any) -> None:
    rows = result.table.to_pylist()
    named = result.by or tuple(n for n in result.split()[1] if n != result.y)[:3]
    names = [", ".join(str(row[n]) for n in named) or str(i + 1) for i, row in enumerate(rows)]
    places = list(range(len(rows)))
    ax.barh(places, [float("nan") if row[result.y] is None else row[result.y] for row in rows])
    ax.set_yticks(places, names)
    ax.invert_yaxis()
    ax.set_xlabel(result.labels[result.y])


def _lines(result: QueryResult, ax: Any) -> None:
    groups: dict[tuple[Any, ...], list[tuple[float, float]]] = {}
    for row in result.table.to_pylist():
        points = groups.setdefault(tuple(row[n] for n in result.by), [])
        if row[result.x] is not None and row[result.y] is not None:
            points.append((row[result.x], row[result.y]))
    style = {"drawstyle": "steps-post"} if result.kind == "front" else {}
    for i, (key, points) in enumerate(groups.items()):
        if points:
            across, up = zip(*sorted(points), strict=True)
            label = ", ".join(str(k) for k in key)
            marks = {"marker": _MARKERS[i % len(_MARKERS)], "markersize": 4, "markevery": max(len(points) // _MARKS, 1)}
            ax.plot(across, up, label=label or None, **marks, **style)
    for axis, at in (("x", 0), ("y", 1)):
        values = [p[at] for points in groups.values() for p in points]
        if values and min(values) > 0 and max(values) >= _LOG_FROM * min(values):
            getattr(ax, f"set_{axis}scale")("log")
    if len(groups) > 1:
        ax.legend(title=", ".join(result.by))
    ax.set_xlabel(result.labels[result.x])
    ax.set_ylabel(result.labels[result.y])
    ax.grid(alpha=0.3)
