"""Which resource a set of steps answers to: a tornado of what a slower and a faster one would do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof.batch import StepBatch
from mfuroof.plots.style import COLOURS, axes_of, legend, tidy
from mfuroof.sensitivity import sensitivity, what_if
from mfuroof.step import StepEvaluator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["tornado"]


def tornado(
    evaluator: StepEvaluator,
    batch: StepBatch,
    *,
    change: float = 0.2,
    tables: Any = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Draw by how much the time of all steps changes when each resource is slower or faster.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    batch
        Shapes of n steps, each as often as the others.
    change
        How much a rate is multiplied and divided by, less one, above 0. [fraction]
    tables
        What the evaluator was made with, if not None.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        Two bar containers, slower and faster; the resource that matters most is at the top. Resources that none of
        the steps uses are left out.

    Raises
    ------
    InputError
        ``change`` is out of range, the steps take no time, or as `mfuroof.sensitivity.sensitivity`.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    change = problems.number("change", change, 0.0, 100.0, open_low=True)
    problems.raise_if_any()
    s = sensitivity(evaluator, batch, tables=tables)
    total = float(s.step_time_s.sum())
    if total <= 0:
        problems.add("batch", "steps that take no time", "at least one that does")
    problems.raise_if_any()
    factors = (1.0 / (1.0 + change), 1.0 + change)
    bars: dict[str, tuple[float, float]] = {}
    for name, share in s.total().items():
        if name == "overhead":
            bars[name] = (share * change, -share * change / (1.0 + change))
        elif share > 0:
            rates: list[dict[str, Any]] = [{name: factor} for factor in factors]
            changed = [what_if(evaluator, tables=tables, **rate).step_time(batch).sum() for rate in rates]
            bars[name] = (float(changed[0]) / total - 1.0, float(changed[1]) / total - 1.0)
    names = sorted(bars, key=lambda name: bars[name][0])
    ax = axes_of(ax, height=1.6 + 0.36 * len(names))
    at = np.arange(len(names))
    slower, faster = (np.array([bars[name][side] * 100 for name in names]) for side in (0, 1))
    ax.barh(at, slower, color=COLOURS[1], height=0.6, hatch="///", edgecolor="white", label=f"{1 + change:g} × slower")
    ax.barh(at, faster, color=COLOURS[0], height=0.6, edgecolor="white", label=f"{1 + change:g} × faster")
    ax.axvline(0.0, color="black", linewidth=0.8)
    ax.set_yticks(at, names)
    ax.margins(x=0.15)
    for y, value in [*zip(at, slower, strict=True), *zip(at, faster, strict=True)]:
        offset, side = (3, "left") if value >= 0 else (-3, "right")
        style = {"textcoords": "offset points", "ha": side, "va": "center", "size": 8}
        ax.annotate(f"{value:+.1f}", (value, y), (offset, 0), **style)
    tidy(ax, title=title, xlabel="change of the time of all steps [%]", grid="x")
    legend(ax, loc="lower right")
    return ax
