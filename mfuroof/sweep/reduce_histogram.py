"""How often values of a column fall between given edges, by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof.errors import InputError, Problem
from mfuroof.expressions import Expression
from mfuroof.sweep.block import Block
from mfuroof.sweep.groups import block_groups
from mfuroof.sweep.reduction import column_names, condition, known_columns, number_columns, only_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Histogram", "HistogramState"]

_BIN, _COUNT = "bin", "rows"
_THIN_AT = 2**15


@dataclass(frozen=True)
class Histogram:
    """Rows with ``edges[i] <= value < edges[i + 1]``, and those below, above and without a value.

    Parameters
    ----------
    column
        Column of numbers.
    edges
        Rising edges, at least two, in the unit of the column. Values at the last edge count as above it.
    by
        Columns that make groups; none for the whole sweep.
    where
        Condition on the columns that rows must meet, see `mfuroof.expressions`; None for none.

    Raises
    ------
    InputError
        Edges that do not rise.

    Examples
    --------
    >>> Histogram("step_time_s", edges=[0.001, 0.01, 0.1]).edges
    (0.001, 0.01, 0.1)
    """

    column: str
    edges: tuple[float, ...]
    by: str | Sequence[str] = ()
    where: str | None = None

    def __post_init__(self) -> None:
        problems = Problems()
        object.__setattr__(self, "by", column_names(self.by))
        edges = tuple(problems.number(f"edges[{i}]", e) for i, e in enumerate(self.edges))
        problems.raise_if_any()
        if len(edges) < 2 or any(b <= a for a, b in pairwise(edges)):
            raise InputError(Problem("edges", f"{len(edges)} values", "at least two, rising"))
        object.__setattr__(self, "edges", edges)

    def check(self, schema: pa.Schema) -> None:
        """Raise where a column is not known or holds no numbers."""
        number_columns(schema, (self.column,))
        known_columns(schema, self.by, "group by")
        condition(self.where, schema)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"kind": "histogram", "column": self.column, "edges": list(self.edges), "by": list(self.by),
                "where": self.where}  # fmt: skip

    def start(self, schema: pa.Schema) -> HistogramState:
        """Return an empty state."""
        return HistogramState(self, condition(self.where, schema), schema)

    def restored(self, schema: pa.Schema, table: pa.Table) -> HistogramState:
        """Return the state of a table."""
        state = self.start(schema)
        state.counted = table
        return state


class HistogramState:
    """Counts by group and bin; bin 0 is below the edges, the last but one above them, the last without a value."""

    def __init__(self, spec: Histogram, where: Expression | None, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._spec, self._where = spec, where
        keys = [schema.field(name) for name in spec.by]
        keys = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in keys]
        self._schema = pa.schema([*keys, pa.field(_BIN, pa.int32()), pa.field(_COUNT, pa.int64())])
        self._unit = schema.field(spec.column).metadata or {}
        self.counted: pa.Table = self._schema.empty_table()
        self._new: list[pa.Table] = []
        self._waiting = 0

    def update(self, block: Block) -> None:
        """Take in rows."""
        import pyarrow as pa

        block = only_rows(block, self._where)
        if not block.rows:
            return
        edges = np.array(self._spec.edges)
        values = np.asarray(block.values(self._spec.column), np.float64)
        bins = np.searchsorted(edges, values, side="right")
        bins[np.isnan(values)] = edges.size + 1
        groups, count = block_groups(block, self._spec.by)
        size = edges.size + 2
        if groups is None:
            counts, first = np.bincount(bins, minlength=size), np.zeros(1, np.int64)
        else:
            counts = np.bincount(groups * size + bins, minlength=count * size)
            first = np.zeros(count, np.int64)
            first[groups[::-1]] = np.arange(block.rows)[::-1]
        at = np.flatnonzero(counts)
        keys = block.picked(first[at // size], pa.schema([self._key_field(name, block) for name in self._spec.by]))
        columns = {name: _text(keys.column(name)) for name in self._spec.by}
        columns |= {_BIN: pa.array((at % size).astype(np.int32)), _COUNT: pa.array(counts[at].astype(np.int64))}
        self._append(pa.table(list(columns.values()), schema=self._schema))

    def _key_field(self, name: str, block: Block) -> pa.Field:
        import pyarrow as pa

        kind = self._schema.field(name).type
        return pa.field(name, pa.dictionary(pa.int16(), kind) if block.column(name).names is not None else kind)

    def merge(self, other: HistogramState) -> None:
        """Add the counts of another state."""
        self._append(other.table())

    def _append(self, table: pa.Table) -> None:
        self._new.append(table)
        self._waiting += table.num_rows
        if self._waiting > _THIN_AT + 2 * self.counted.num_rows:
            self.table()

    def table(self) -> pa.Table:
        """Return the counts by group and bin, those above 0, in order."""
        import pyarrow as pa

        if self._new:
            keys = [*self._spec.by, _BIN]
            whole = pa.concat_tables([self.counted, *self._new])
            summed = whole.group_by(keys, use_threads=False).aggregate([(_COUNT, "sum")])
            summed = summed.rename_columns([*keys, _COUNT]).select([*keys, _COUNT])
            self.counted = summed.sort_by([(k, "ascending") for k in keys]).cast(self._schema).combine_chunks()
            self._new, self._waiting = [], 0
        return self.counted

    def result(self) -> pa.Table:
        """Return groups, ``from`` and ``to`` of each bin (infinite at the ends, null without a value) and ``rows``."""
        import pyarrow as pa

        table = self.table()
        edges = np.array([-np.inf, *self._spec.edges, np.inf])
        at = table.column(_BIN).to_numpy()
        none = at == edges.size - 1
        where = np.minimum(at, edges.size - 2)
        unit = {k: v for k, v in self._unit.items() if k == b"unit"}
        low, high = pa.array(edges[where], mask=none), pa.array(edges[where + 1], mask=none)
        fields = [
            *(self._schema.field(name) for name in self._spec.by),
            pa.field("from", pa.float64(), metadata=unit | {b"meaning": b"lower edge, included"}),
            pa.field("to", pa.float64(), metadata=unit | {b"meaning": b"upper edge, not included"}),
            pa.field(_COUNT, pa.int64(), metadata={"unit": "rows", "meaning": f"rows by {self._spec.column}"}),
        ]
        columns = [*(table.column(name) for name in self._spec.by), low, high, table.column(_COUNT)]
        return pa.table(columns, schema=pa.schema(fields))


def _text(column: pa.Array) -> pa.Array:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
