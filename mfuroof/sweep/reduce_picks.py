"""The state of reductions that pick rows of a sweep: candidates, thinned out whenever there are many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.expressions import Expression
from mfuroof.sweep.block import BOOL, Block, Column
from mfuroof.sweep.groups import block_groups, table_groups
from mfuroof.sweep.reduction import only_rows

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["POSITION", "PickRule", "Picks", "upwards"]

POSITION = "position"
"""Column of a state's table: where a row stands in the sweep."""

_THIN_AT = 2**15
"""Candidates beyond those that are known to stay before they are thinned out. [rows]"""


class PickRule(Protocol):
    """Which rows of some are picked."""

    @property
    def by(self) -> Sequence[str]:
        """Columns that make groups; each group is picked from on its own."""
        ...

    @property
    def must_fit(self) -> bool:
        """Whether rows that do not fit the memory are left out."""
        ...

    @property
    def objectives(self) -> tuple[tuple[str, bool], ...]:
        """Columns that are compared, and whether more is better."""
        ...

    def chosen(self, groups: I64 | None, count: int, values: Sequence[F64], positions: I64) -> I64:
        """Return which rows are picked, best first within a group.

        Parameters
        ----------
        groups
            Group of each row (n,), in [0, count); None where there is but one.
        values
            The objectives (n,) each, none of them NaN, turned so that more is better.
        positions
            Position of each row in the sweep (n,).
        """
        ...


class Picks:
    """Rows picked so far by a rule.

    Parameters
    ----------
    rule
        What is picked.
    where
        Condition rows must meet; None for none.
    schema
        Columns of the sweep.
    """

    def __init__(self, rule: PickRule, where: Expression | None, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._rule, self._where = rule, where
        self._schema = schema.append(pa.field(POSITION, pa.int64(), metadata={"unit": "-", "meaning": "row"}))
        self._kept: pa.Table = self._schema.empty_table()
        self._new: list[pa.RecordBatch] = []
        self._waiting = 0

    def update(self, block: Block) -> None:
        """Take in rows."""
        block = only_rows(block, self._where)
        if self._rule.must_fit and block.column("fits").known:
            block = block.select(block.values("fits"))
        values = [upwards(block.values(name), more) for name, more in self._rule.objectives]
        good = _answered(values)
        if not good.all():
            block, values = block.select(good), [v[good] for v in values]
        if not block.rows:
            return
        groups, count = block_groups(block, self._rule.by)
        positions = block.positions
        at = self._rule.chosen(groups, count, values, positions)
        placed = Block(block.case, block.start, block.rows, {**block.columns, POSITION: Column(positions)}, block.kept)
        self._append([placed.picked(at, self._schema)])

    def merge(self, other: Picks) -> None:
        """Take in what another state has picked."""
        self._append(other.table().to_batches())

    def _append(self, batches: list[pa.RecordBatch]) -> None:
        self._new += batches
        self._waiting += sum(b.num_rows for b in batches)
        if self._waiting > _THIN_AT + 2 * self._kept.num_rows:
            self.table()

    def table(self) -> pa.Table:
        """Return the rows picked, with their positions; groups in the order of their first row."""
        import pyarrow as pa

        if self._new:
            table = pa.concat_tables([self._kept, pa.Table.from_batches(self._new, self._schema)])
            table = table.unify_dictionaries().combine_chunks()
            table = table.sort_by(POSITION)
            groups, count = table_groups(table, self._rule.by)
            values = [upwards(table.column(name).to_numpy(), more) for name, more in self._rule.objectives]
            at = self._rule.chosen(groups, count, values, table.column(POSITION).to_numpy())
            self._kept = _plain(table.take(at), self._schema)
            self._new, self._waiting = [], 0
        return self._kept

    def result(self) -> pa.Table:
        """Return the rows picked, by group in the order of the columns that make them, the best first."""
        import pyarrow as pa

        table = self.table()
        order = pa.table({"rank": np.arange(table.num_rows)} | {n: _sortable(table.column(n)) for n in self._rule.by})
        keys = [(name, "ascending") for name in (*self._rule.by, "rank")]
        at = order.sort_by(keys).column("rank")
        return table.take(at).drop_columns([POSITION])

    @classmethod
    def restored(cls, rule: PickRule, where: Expression | None, schema: pa.Schema, table: pa.Table) -> Picks:
        """Return the state that `table` came from."""
        state = cls(rule, where, schema)
        state._kept = table
        return state


def upwards(values: Any, more_is_better: bool) -> F64:
    """Return an objective as float64 (n,), turned so that more is better."""
    values = np.asarray(values, np.float64)
    return values if more_is_better else -values


def _answered(values: Sequence[F64]) -> BOOL:
    good = ~np.isnan(values[0])
    for v in values[1:]:
        good &= ~np.isnan(v)
    return good


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa

    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _plain(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table whose dictionaries hold what is used, in order of use: equal rows are then equal tables."""
    import pyarrow as pa

    columns = []
    for field, column in zip(schema, table.columns, strict=True):
        if pa.types.is_dictionary(field.type):
            text = column.cast(field.type.value_type).combine_chunks()
            column = text.dictionary_encode().cast(field.type)
        columns.append(column)
    return pa.table(columns, schema=schema)
