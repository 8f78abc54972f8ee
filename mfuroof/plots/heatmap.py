"""Heat maps: measured tables with their points and what they cover, and step times over a grid of shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof import lookup
from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.plots.style import MUTED, QUANTITY_MAP, axes_of, legend, logarithmic, scale_of, tidy
from mfuroof.step import StepEvaluator
from mfuroof.tables.compiled import Table2D

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["step_heatmap", "table_heatmap"]

CELLS = 160
"""Cells along each axis: finer than a printed page shows."""
OPEN = "#F2F2F2"
LABELS = {
    "batch_size": "batch [sequences]",
    "kv_len": "KV length [tokens]",
    "m": "m [tokens]",
    "new_tokens": "prompt [tokens]",
    "tokens": "tokens",
}
"""What stands beside an axis; other columns go by their own names."""
BEYOND = "beyond the measurements"
Flops = Callable[[F64, F64], ArrayLike]


def table_heatmap(
    table: Table2D,
    *,
    rule: str = "linear",
    flops: Flops | None = None,
    peak_flops_per_s: float | None = None,
    unit: str = "us",
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw what a lookup rule reads from a measured grid; dots are measured points, hatching is beyond them.

    Parameters
    ----------
    table
        Latencies over two coordinates, both positive (`mfuroof.ops.slices.slice_of` makes one). [s]
    rule
        One of `mfuroof.lookup.RULES`.
    flops
        From (row, column) coordinates to FLOPs; with it and a peak, MFU is drawn instead of latency.
    peak_flops_per_s
        Rate the MFU is relative to. [FLOP/s]
    unit
        Of the latencies: ``"s"``, ``"ms"`` or ``"us"``.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        A mesh of the values, and a collection of the measured points.

    Raises
    ------
    InputError
        A coordinate is not positive, there are less than two rows or columns, or one of ``flops`` and
        ``peak_flops_per_s`` is missing.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    rows, cols = np.repeat(table.rows, np.diff(table.offsets)), table.cols
    for name, values in zip(table.axes, (rows, cols), strict=True):
        if values.min() <= 0 or np.unique(values).size < 2:
            problems.add(name, f"{np.unique(values).size} values from {values.min():g}", "two or more positive ones")
    if (flops is None) != (peak_flops_per_s is None):
        problems.add("flops and peak_flops_per_s", "one of them", "both for MFU, none for latency")
    problems.raise_if_any()
    x_edges, y_edges = np.geomspace(cols.min(), cols.max(), CELLS + 1), np.geomspace(rows.min(), rows.max(), CELLS + 1)
    y, x = np.meshgrid(_middles(y_edges), _middles(x_edges), indexing="ij")
    values, measured = lookup.read(table, y, x, rule=rule, outside="nan"), table.values
    label, scale = f"latency [{unit}]", scale_of(unit)
    if flops is not None and peak_flops_per_s is not None:
        values = np.asarray(flops(y, x)) / (values * peak_flops_per_s)
        measured = np.asarray(flops(rows, cols)) / (measured * peak_flops_per_s)
        label, scale = "MFU", 1.0
    ax = axes_of(ax)
    _mesh(ax, x_edges, y_edges, values / scale, label, measured / scale, logarithmic_values=flops is None)
    dots = {"color": "white", "edgecolors": "black", "linewidths": 0.5, "clip_on": False, "zorder": 3}
    ax.scatter(cols, rows, s=min(8.0, 2500 / cols.size), **dots)
    ax.set_xlim(x_edges[0], x_edges[-1])
    ax.set_ylim(y_edges[0], y_edges[-1])
    logarithmic(ax)
    return tidy(ax, title=title, xlabel=_label(table.axes[1]), ylabel=_label(table.axes[0]), grid="")


def step_heatmap(
    evaluator: StepEvaluator,
    decode_batch: ArrayLike,
    decode_context: ArrayLike,
    *,
    unit: str = "ms",
    ax: Axes | None = None,
    title: str = "",
    **shape: Any,
) -> Axes:
    """Draw the time of a step over decode batch and context; hatching is where no measurement stands behind it.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    decode_batch : array_like, shape (b,)
        Ascending, two or more.
    decode_context : array_like, shape (c,)
        Ascending, two or more. [tokens]
    unit
        ``"s"``, ``"ms"`` or ``"us"``.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.
    **shape
        The rest of the step: ``prefill_batch``, ``prefill_new_tokens``, ``prefill_context``; one number each.

    Returns
    -------
    Axes
        A mesh of b x c values; lookups beyond the measured range (clamped or worse) are hatched.

    Raises
    ------
    InputError
        Less than two values, not ascending, not positive, or not what `StepBatch.uniform` takes.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    axes = {}
    for name, given in (("decode_batch", decode_batch), ("decode_context", decode_context)):
        values = np.asarray(given, np.float64).ravel()
        if values.size < 2 or (np.diff(values) <= 0).any() or not (values > 0).all():
            problems.add(name, f"{values.size} values", "two or more positive ones, ascending")
        axes[name] = values
    problems.raise_if_any()
    b, c = (grid.ravel() for grid in np.meshgrid(*axes.values(), indexing="ij"))
    result = evaluator.evaluate(StepBatch.uniform(b, c, **shape))
    form = axes["decode_batch"].size, axes["decode_context"].size
    times = result.step_time_s.reshape(form) / scale_of(unit)
    covered = (result.source <= Source.INTERPOLATED).reshape(form)
    ax = axes_of(ax)
    edges = [_edges(values) for values in axes.values()]
    _mesh(ax, edges[1], edges[0], times, f"step time [{unit}]", times.ravel(), logarithmic_values=True)
    if not covered.all():
        beyond = np.where(covered, 0.0, 1.0)
        x, y = axes["decode_context"], axes["decode_batch"]
        ax.contourf(x, y, beyond, levels=[0.5, 1.5], colors="none", hatches=["//"])
        _explain(ax, "none", "black")
    logarithmic(ax)
    return tidy(ax, title=title, xlabel="context of a decode request [tokens]", ylabel="decode requests", grid="")


def _mesh(ax: Axes, x: F64, y: F64, values: F64, label: str, known: F64, *, logarithmic_values: bool) -> None:
    """Draw the values that there are in the colours of the known ones, and hatch what stands open."""
    from matplotlib.colors import LogNorm, Normalize

    if not np.isfinite(values).all():
        ax.set_facecolor(OPEN)
        ax.patch.set(hatch="///", edgecolor=MUTED)
        _explain(ax, OPEN, MUTED)
    norm = LogNorm(known.min(), known.max()) if logarithmic_values else Normalize(0.0, known.max())
    mesh = ax.pcolormesh(x, y, np.ma.masked_invalid(values), cmap=QUANTITY_MAP, norm=norm, rasterized=True)
    bar = ax.figure.colorbar(mesh, ax=ax, label=label, pad=0.02)
    bar.outline.set_visible(False)
    if logarithmic_values:
        logarithmic(bar.ax, "y")


def _explain(ax: Axes, fill: str, line: str) -> None:
    """Say what hatching means, in a legend."""
    from matplotlib.patches import Patch

    legend(ax, handles=[Patch(facecolor=fill, edgecolor=line, hatch="///", label=BEYOND)], loc="upper right")


def _middles(edges: F64) -> F64:
    return np.sqrt(edges[1:] * edges[:-1])


def _edges(values: F64) -> F64:
    """Return the borders of cells around points, half way between them on a logarithmic axis."""
    inner = _middles(values)
    return np.concatenate([[values[0] ** 2 / inner[0]], inner, [values[-1] ** 2 / inner[-1]]])


def _label(axis: str) -> str:
    return LABELS.get(axis, axis)
