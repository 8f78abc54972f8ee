"""The product of axes, cut into chunks that are never more than a few arrays in memory.

Trailing axes whose product fits a chunk are whole in each chunk and the same arrays in all of them; the axis before
them is cut into pieces; the axes before that one are constant within a chunk, a single number to the kernels.
Rejected: dividing a running row number by the strides of all axes, which costs as much as pricing the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfuroof._types import I64, freeze
from mfuroof.batch import StepBatch

__all__ = ["SHAPE_AXES", "Chunk", "Grid"]

SHAPE_AXES = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
"""Columns of a uniform step that a sweep spans; the last one varies fastest."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive rows of a grid.

    Attributes
    ----------
    start
        Position of the first row in the grid.
    columns
        Values by axis, read-only int64: (n,) where they vary within the chunk, (1,) where they do not.
    rows
        Number of rows n.
    """

    start: int
    columns: Mapping[str, I64]
    rows: int

    @cached_property
    def batch(self) -> StepBatch:
        """The rows as a uniform batch."""
        given = {name: c if c.size == self.rows else int(c[0]) for name, c in self.columns.items()}
        return StepBatch.uniform(**given)

    def row(self, i: int) -> dict[str, int]:
        """Return the shape of row ``i`` of the chunk."""
        return {name: int(column[i if column.size > 1 else 0]) for name, column in self.columns.items()}


class Grid:
    """The product of `SHAPE_AXES`, as numbered chunks of at most ``chunk_rows`` rows.

    Parameters
    ----------
    axes
        Values by axis, each (k,) with k >= 1.
    chunk_rows
        Most rows of a chunk; all but the last pieces have more than half of it, if the grid has.
    """

    def __init__(self, axes: Mapping[str, I64], chunk_rows: int) -> None:
        self.axes = {name: axes[name] for name in SHAPE_AXES}
        sizes = [values.size for values in self.axes.values()]
        self.rows = math.prod(sizes)
        cut, inner = len(sizes), 1
        while cut and inner * sizes[cut - 1] <= chunk_rows:
            cut -= 1
            inner *= sizes[cut]
        self._inner = inner
        self._whole = SHAPE_AXES[cut:]
        self._cut = SHAPE_AXES[cut - 1] if cut else None
        self._outer = SHAPE_AXES[: max(cut - 1, 0)]
        length = sizes[cut - 1] if cut else 1
        self._piece = min(max(chunk_rows // inner, 1), length)
        self._pieces = -(-length // self._piece)
        self._length = length

    def __len__(self) -> int:
        """Return the number of chunks."""
        return math.prod(self.axes[name].size for name in self._outer) * self._pieces

    def chunk(self, number: int) -> Chunk:
        """Return chunk ``number``; chunks 0, 1, 2 ... cover the rows of the grid in order."""
        outer, piece = divmod(number, self._pieces)
        first = piece * self._piece
        last = min(first + self._piece, self._length)
        columns: dict[str, I64] = {}
        remaining = outer
        for name in reversed(self._outer):
            remaining, digit = divmod(remaining, self.axes[name].size)
            columns[name] = self.axes[name][digit : digit + 1]
        rows = (last - first) * self._inner
        if self._cut is not None:
            values = self.axes[self._cut][first:last]
            columns[self._cut] = values if values.size == 1 else freeze(np.repeat(values, self._inner), np.int64)
        for name, tile in self._tiles.items():
            columns[name] = tile if tile.size == 1 else tile[:rows]
        start = (outer * self._length + first) * self._inner
        return Chunk(start, {name: columns[name] for name in SHAPE_AXES}, rows)

    @cached_property
    def _tiles(self) -> dict[str, I64]:
        """Columns of the whole axes for a full piece; a shorter piece reads their beginning."""
        tiles, each = {}, 1
        for name in reversed(self._whole):
            values = self.axes[name]
            times = self._piece * self._inner // (values.size * each)
            tiles[name] = values if values.size == 1 else freeze(np.tile(np.repeat(values, each), times), np.int64)
            each *= values.size
        return tiles
