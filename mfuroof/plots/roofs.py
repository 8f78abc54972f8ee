"""The roofline of a device, with the operations of a step placed on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mfuroof._boundary import Problems
from mfuroof.breakdown import StepResult
from mfuroof.errors import InputError, Problem
from mfuroof.hardware import Hardware
from mfuroof.plots.style import MUTED, axes_of, colour, legend, logarithmic, marker, tidy
from mfuroof.units import TERA

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["roofline"]

SMALLEST, LARGEST = 25.0, 320.0
"""Areas of marks: of an operation that takes no time, and of one that takes the whole step."""


def roofline(
    result: StepResult,
    hardware: Hardware,
    *,
    step: int = 0,
    dtypes: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str = "",
) -> Axes:
    """Place the operations of one step under the roofs of its device.

    The height of a mark is the rate an operation reaches, its position the FLOPs per byte it needs, its area grows
    with its share of the step. What does no FLOPs (norms, collectives, overhead) has no place; the legend says how
    much of the step that is.

    Parameters
    ----------
    result
        Of a cost that knows FLOPs and bytes of each operation: ``kernels``.
    hardware
        The device of the evaluator.
    step
        Which step of the result.
    dtypes
        Formats whose peak rates are drawn; of bf16, fp8 and fp4 those that the device has when left out.
    ax
        Where to draw; a new figure when left out.
    title
        What stands above.

    Returns
    -------
    Axes
        One collection for each operation, the longest first.

    Raises
    ------
    InputError
        No such step, or no operation of it has FLOPs, bytes and a time.
    MfuroofError
        matplotlib is not installed.
    """
    problems = Problems()
    if not 0 <= step < len(result):
        problems.add("step", step, f"a position in [0, {len(result)})")
        problems.raise_if_any()
    total = float(result.step_time_s[step])
    placed = {}
    for name, time in result.op_time_s.items():
        if name in result.op_flops and name in result.op_bytes:
            flops, moved = float(result.op_flops[name][step]), float(result.op_bytes[name][step])
            if flops > 0 and moved > 0 and time[step] > 0:
                placed[name] = (flops / moved, flops / float(time[step]), float(time[step]) / total)
    if not placed:
        remedy = 'Use cost="kernels", and a step that is not empty.'
        raise InputError(Problem(f"step {step}", "no operation with FLOPs, bytes and a time", "at least one", remedy))
    roofs = dtypes if dtypes is not None else [d for d in ("bf16", "fp8", "fp4") if d in hardware.peak_flops_per_s]
    ax = axes_of(ax, width=8.0, height=4.4)
    intensity = np.array([x for x, _, _ in placed.values()])
    ridge = max(hardware.ridge_point(dtype) for dtype in roofs)
    low, high = min(intensity.min() / 2, ridge / 50), max(intensity.max() * 2, ridge * 8)
    _draw_roofs(ax, hardware, roofs, low, high)
    for i, (name, (x, rate, share)) in enumerate(sorted(placed.items(), key=lambda item: -item[1][2])):
        area = SMALLEST + (LARGEST - SMALLEST) * share
        label = f"{name}: {share:.1%} of the step"
        ax.scatter([x], [rate / TERA], s=area, marker=marker(i), color=colour(i), alpha=0.8, label=label, zorder=3)
    floor = min(rate for _, rate, _ in placed.values()) / TERA / 3
    ax.set_xlim(low, high)
    ax.set_ylim(min(floor, low * hardware.hbm_bytes_per_s / TERA), max(map(hardware.peak, roofs)) / TERA * 2.5)
    logarithmic(ax)
    tidy(ax, title=title, xlabel="arithmetic intensity [FLOP/byte]", ylabel="rate reached [TFLOP/s]")
    elsewhere = 1.0 - sum(share for _, _, share in placed.values())
    legend(ax, beside=True, title=f"no FLOPs: {elsewhere:.1%} of the step", title_fontsize="small", alignment="left")
    for handle in ax.get_legend().legend_handles:
        handle.set_sizes([SMALLEST])
    return ax


def _draw_roofs(ax: Axes, hardware: Hardware, dtypes: Sequence[str], low: float, high: float) -> None:
    """Draw the slope that memory bandwidth sets, and a ceiling for each format."""
    top = max(hardware.ridge_point(dtype) for dtype in dtypes)
    slope = np.array([low, top])
    ax.plot(slope, slope * hardware.hbm_bytes_per_s / TERA, color=MUTED, linewidth=1.2)
    for dtype in dtypes:
        peak = hardware.peak(dtype) / TERA
        ax.plot([hardware.ridge_point(dtype), high], [peak, peak], color=MUTED, linewidth=1.2)
        ax.annotate(
            f"{dtype} {peak:,.0f}", (high, peak), (-3, 2), textcoords="offset points", ha="right", va="bottom", size=8
        )
    bandwidth = hardware.hbm_bytes_per_s / TERA
    at = float(np.sqrt(low * top))
    ax.annotate(
        f"HBM {bandwidth:.2f} TB/s", (at, at * bandwidth), (-4, 4), textcoords="offset points", ha="right", size=8
    )
