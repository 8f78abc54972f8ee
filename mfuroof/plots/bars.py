"""Step times as stacked bars of their components."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.breakdown import StepResult
from mfuroof.plots.style import COLOURS, HATCHES, MUTED, axes_of, legend, scale_of, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["breakdown"]

COLUMNS = {
    "decode_batch": "decode requests of a step",
    "decode_context": "context of a decode request [tokens]",
    "prefill_batch": "prefill requests of a step",
    "prefill_new_tokens": "new tokens of a prefill request",
    "prefill_context": "context of a prefill request [tokens]",
}
MOST_BARS = 64
"""More bars than these are no figure."""


def breakdown(
    result: StepResult,
    *,
    x: ArrayLike | None = None,
    xlabel: str = "",
    unit: str = "ms",
    relative: bool = False,
    most: int = 6,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw one bar a step, made of its components.

    Parameters
    ----------
    result
        At most 64 steps.
    x : array_like, shape (n,)
        What is written under each bar; when left out, the shape column that varies over the steps.
    xlabel
        What it is, with its unit; known when ``x`` is left out.
    unit
        ``"s"``, ``"ms"`` or ``"us"``.
    relative
        Draw shares of the step instead of times.
    most
        Components shown by name, at most 7; the smaller ones are one part, "others".
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        One bar container a component, in the order of the step.

    Raises
    ------
    InputError
        No step, too many, or labels that do not fit.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    n = len(result)
    if not 1 <= n <= MOST_BARS:
        problems.add("result", f"{n} steps", f"between 1 and {MOST_BARS}, one bar each")
    labels, named = _labels(result.batch) if x is None else (np.asarray(x).ravel(), "")
    if labels.size != n:
        problems.add("x", f"{labels.size} values", f"{n}, one a step")
    most = min(problems.positive_int("most", most), len(COLOURS))
    problems.raise_if_any()
    ax = axes_of(ax, width=max(6.8, 4.0 + 0.28 * n))
    parts = _parts(result, most)
    total = np.sum(list(parts.values()), axis=0)
    scale = np.where(total > 0, total, 1.0) / 100.0 if relative else np.full(n, scale_of(unit))
    position, bottom = np.arange(n), np.zeros(n)
    for i, (name, time) in enumerate(parts.items()):
        fill = MUTED if name == "others" else COLOURS[i]
        style = {"color": fill, "hatch": HATCHES[i], "edgecolor": "white", "linewidth": 0.4}
        ax.bar(position, time / scale, bottom=bottom, width=0.8, label=name, **style)
        bottom = bottom + time / scale
    ax.set_xticks(position, [_text(label) for label in labels], rotation=45 if n > 12 else 0)
    ylabel = "share of the step [%]" if relative else f"time [{unit}]"
    tidy(ax, title=title, xlabel=xlabel or named, ylabel=ylabel, grid="y")
    legend(ax, beside=True, reverse=True)
    return ax


def _labels(batch: StepBatch) -> tuple[np.ndarray, str]:
    """Return the one column that varies and what it is; positions where there is not exactly one."""
    columns = batch.columns
    if isinstance(columns, UniformColumns):
        varying = [name for name in COLUMNS if np.unique(getattr(columns, name)).size > 1]
        if len(varying) == 1:
            return np.asarray(getattr(columns, varying[0])), COLUMNS[varying[0]]
    return np.arange(len(batch)), "step"


def _parts(result: StepResult, most: int) -> dict[str, F64]:
    """Return the largest components in the order of the step; what is left is added up."""
    times = {name: time for name, time in result.op_time_s.items() if time.any()}
    largest = sorted(times, key=lambda name: -float(times[name].sum()))[:most]
    parts = {name: time for name, time in times.items() if name in largest}
    rest = [time for name, time in times.items() if name not in largest]
    return parts | ({"others": np.sum(rest, axis=0)} if rest else {})


def _text(label: object) -> str:
    if isinstance(label, int | np.integer):
        return f"{label:,}"
    return f"{label:g}" if isinstance(label, float) else str(label)
