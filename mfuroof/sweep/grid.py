"""The product of axes, cut into chunks that are never more than a few arrays in memory.

Trailing axes whose product fits a chunk are whole in each chunk and the same arrays in all of them; the axis before
them is cut into pieces; the axes before that one are constant within a chunk, a single number to the kernels.
Columns that advance together (a zip, or the rows of a table) are one axis. Rejected: dividing a running row number by
the strides of all axes, which costs as much as pricing the steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mfuroof._types import I64, freeze
from mfuroof.batch import StepBatch

__all__ = ["SHAPE_AXES", "Chunk", "Grid"]

SHAPE_AXES = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
"""Columns of a uniform step that a sweep spans; the last one varies fastest."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive rows of a grid, or some of them.

    Attributes
    ----------
    start
        Position of the first row in the grid.
    columns
        Values by axis, read-only int64: (n,) where they vary within the chunk, (1,) where they do not.
    rows
        Number of rows n.
    kept
        Offset from ``start`` of each row (n,) where some were left out; None where none were.
    """

    start: int
    columns: Mapping[str, I64]
    rows: int
    kept: I64 | None = None

    @cached_property
    def batch(self) -> StepBatch:
        """The rows as a uniform batch."""
        return StepBatch.uniform(**self.columns_of(SHAPE_AXES))

    def columns_of(self, names: Sequence[str]) -> dict[str, Any]:
        """Return some columns as arguments: (n,) where they vary, a number where they do not."""
        columns = {name: self.columns[name] for name in names}
        return {k: c if c.size == self.rows else int(c[0]) for k, c in columns.items()}

    def select(self, at: I64) -> Chunk:
        """Return the rows ``at``, ascending offsets within the chunk."""
        columns = {k: c if c.size != self.rows else freeze(c[at], np.int64) for k, c in self.columns.items()}
        return Chunk(self.start, columns, at.size, at if self.kept is None else self.kept[at])


class Grid:
    """The product of axes, as numbered chunks of at most ``chunk_rows`` rows.

    Parameters
    ----------
    axes
        Values by column, each (k,) with k >= 1; the last axis varies fastest.
    chunk_rows
        Most rows of a chunk; all but the last pieces have more than half of it, if the grid has.
    together
        Columns that advance together, of one length each; such an axis stands where its first column does.
    """

    def __init__(self, axes: Mapping[str, I64], chunk_rows: int, together: Sequence[Sequence[str]] = ()) -> None:
        self.axes = dict(axes)
        group = {name: tuple(names) for names in together for name in names}
        self.dims = tuple(dict.fromkeys(group.get(name, (name,)) for name in axes))
        sizes = self._sizes = [axes[dim[0]].size for dim in self.dims]
        self.rows = math.prod(sizes)
        cut, inner = len(sizes), 1
        while cut and inner * sizes[cut - 1] <= chunk_rows:
            cut -= 1
            inner *= sizes[cut]
        self._inner = inner
        self._whole = range(cut, len(sizes))
        self._cut = cut - 1 if cut else None
        self._outer = range(max(cut - 1, 0))
        length = sizes[cut - 1] if cut else 1
        self._piece = min(max(chunk_rows // inner, 1), length)
        self._pieces = -(-length // self._piece)
        self._length = length
        self._chunks = math.prod(sizes[i] for i in self._outer) * self._pieces

    def __len__(self) -> int:
        """Return the number of chunks."""
        return self._chunks

    def first_row(self, number: int) -> int:
        """Return the position of the first row of a chunk."""
        outer, piece = divmod(number, self._pieces)
        return (outer * self._length + piece * self._piece) * self._inner

    def chunk(self, number: int) -> Chunk:
        """Return chunk ``number``; chunks 0, 1, 2 ... cover the rows of the grid in order."""
        outer, piece = divmod(number, self._pieces)
        first = piece * self._piece
        last = min(first + self._piece, self._length)
        columns: dict[str, I64] = {}
        remaining = outer
        for i in reversed(self._outer):
            remaining, digit = divmod(remaining, self._sizes[i])
            columns |= {name: self.axes[name][digit : digit + 1] for name in self.dims[i]}
        rows = (last - first) * self._inner
        if self._cut is not None:
            for name in self.dims[self._cut]:
                values = self.axes[name][first:last]
                columns[name] = values if values.size == 1 else freeze(np.repeat(values, self._inner), np.int64)
        for name, tile in self._tiles.items():
            columns[name] = tile if tile.size == 1 else tile[:rows]
        return Chunk(self.first_row(number), {name: columns[name] for name in self.axes}, rows)

    @cached_property
    def _tiles(self) -> dict[str, I64]:
        """Columns of the whole axes for a full piece; a shorter piece reads their beginning."""
        tiles, each = {}, 1
        for i in reversed(self._whole):
            size = self._sizes[i]
            times = self._piece * self._inner // (size * each)
            for name in self.dims[i]:
                values = self.axes[name]
                tiles[name] = values if size == 1 else freeze(np.tile(np.repeat(values, each), times), np.int64)
            each *= size
        return tiles
