"""Which peak a printed MFU is relative to: an interval per row, and the value that most rows agree on.

A row of latency t and printed MFU u, both rounded, allows the peaks F / (t u) for every t and u that would have been
printed so. A file was made with one peak, so the intervals of its rows intersect in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.work import file_flops
from mfuroof.units import US

__all__ = ["HBM", "PeakInterval", "figures_of", "implied_peak", "row_intervals"]

HBM = "hbm_bytes_per_s"
"""Key of the memory bandwidth among the figures of a GPU."""

Peaks = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class PeakInterval:
    """Peaks that the most rows of a column allow.

    Attributes
    ----------
    low, high
        Ends of the interval, for the FLOPs of the layout's convention. [FLOP/s]
    agreeing, rows
        Rows that allow every peak in it, and rows that say anything: a printed zero only bounds from below.
    """

    low: float
    high: float
    agreeing: int
    rows: int

    @property
    def middle(self) -> float:
        """Middle of the interval. [FLOP/s]"""
        return 0.5 * (self.low + self.high)


def figures_of(gpu: str, peaks: Peaks) -> tuple[str, Mapping[str, float]] | None:
    """Find a GPU folder's figures: the same name, else with ``_sxm`` behind, else the only name that begins with it."""
    folded = {_fold(name): name for name in peaks}
    wanted = _fold(gpu)
    close = [name for fold, name in folded.items() if fold.startswith(wanted)]
    for name in (folded.get(wanted), folded.get(wanted + "sxm"), close[0] if len(close) == 1 else None):
        if name is not None:
            return name, peaks[name]
    return None


def _fold(name: str) -> str:
    return "".join(c for c in name.casefold() if c.isalnum())


def row_intervals(file: BenchFile, column: str) -> tuple[F64, F64]:
    """Return the lowest and the highest peak that each row (n,) of an MFU column allows; a zero allows any higher."""
    time_column = "latency_us" if column == "mfu" else column.replace("_mfu", "_proj_us")
    time, mfu = file.columns[time_column], file.columns[column]
    half_time, half_mfu = 0.5 * 10.0 ** -file.decimals[time_column], 0.5 * 10.0 ** -file.decimals[column]
    flops = file_flops(file)[column]
    with np.errstate(divide="ignore"):
        low = flops / ((time + half_time) * US * (mfu + half_mfu))
        high = flops / (np.maximum(time - half_time, 0.0) * US * np.maximum(mfu - half_mfu, 0.0))
    return low, high


def implied_peak(file: BenchFile, column: str) -> PeakInterval | None:
    """Return the peaks that the most rows of a column allow; None where no row bounds it from above."""
    low, high = row_intervals(file, column)
    bounded = np.isfinite(high)
    if not bounded.any():
        return None
    return _deepest(low[bounded], high[bounded])


def _deepest(low: F64, high: F64) -> PeakInterval:
    """Sweep the ends of closed intervals for the stretch that the most of them cover."""
    ends = np.concatenate([low, high])
    steps = np.repeat([1, -1], low.size)
    order = np.lexsort((-steps, ends))  # intervals that touch overlap: openings first
    depth = np.cumsum(steps[order])
    at = int(np.argmax(depth))
    return PeakInterval(float(ends[order[at]]), float(ends[order[at + 1]]), int(depth[at]), int(low.size))
