"""Reduce rows piece by piece: memory for one piece and the rows that still may win, whatever the size of the source."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mfuroof._types import F64
from mfuroof.queries.columns import column_of, order_keys, readable
from mfuroof.queries.question import Question
from mfuroof.queries.ranking import Reduce, group_codes
from mfuroof.queries.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Reduced", "reduced"]


class Reduced(NamedTuple):
    """The rows that won, completed and in order, and how many were seen."""

    table: pa.Table
    rows: int
    allowed: int
    alone: list[int]
    """Rows that meet each constraint by itself."""


def reduced(source: Source, question: Question, reduce: Reduce) -> Reduced:
    """Return what a reduction leaves of a source.

    Of each piece only the columns in question are read; all columns of it only where one of its rows may win.
    """
    kept: pa.Table = source.schema.empty_table()
    kept = _plain(kept)
    values = np.empty((len(question.objectives), 0))
    seen = met = 0
    alone = [0] * len(question.where)
    for piece in source.pieces:
        part = piece(question.needed)
        columns = question.columns(part)
        good, each = question.allowed(columns, part.num_rows)
        seen, met = seen + part.num_rows, met + int(np.count_nonzero(good))
        alone = [a + b for a, b in zip(alone, each, strict=True)]
        found = question.values(columns, part.num_rows)
        rows = np.flatnonzero(good & np.isfinite(found).all(axis=0))  # a division by zero never wins
        groups = group_codes([column_of(part, name) for name in question.by], part.num_rows)
        rows = rows[reduce(found[:, rows], groups[rows], None)]
        rows = rows[_may_win(kept, values, part.take(rows), found[:, rows], question, reduce)]
        if not rows.size:
            continue
        new = _plain(piece(None).take(rows))
        kept = _joined(kept, new)
        values = np.concatenate([values, found[:, rows]], axis=1)
        order = _order(kept, values, question, reduce)
        kept, values = kept.take(order), values[:, order]
    return Reduced(question.completed(kept), seen, met, alone)


def _may_win(kept: pa.Table, values: F64, part: pa.Table, found: F64, question: Question, reduce: Reduce) -> np.ndarray:
    """Return which of the new rows are not beaten by those kept, as positions among the new ones."""
    if not kept.num_rows or not part.num_rows:
        return np.arange(part.num_rows)
    both = _joined(kept.select(list(question.by)), _plain(part.select(list(question.by)))) if question.by else None
    total = kept.num_rows + part.num_rows
    groups = group_codes([column_of(both, name) for name in question.by] if both is not None else [], total)
    left = reduce(np.concatenate([values, found], axis=1), groups, None)
    return np.sort(left[left >= kept.num_rows]) - kept.num_rows


def _order(table: pa.Table, values: F64, question: Question, reduce: Reduce) -> np.ndarray:
    """Return the rows that stay, in their final order; every column of the table breaks ties."""
    groups = group_codes([column_of(table, name) for name in question.by], table.num_rows)
    ties = [order_keys(column_of(table, f.name)) for f in table.schema if readable(f.type)]
    return reduce(values, groups, ties)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries are texts again, as those of two pieces may differ."""
    import pyarrow as pa

    fields = [f.with_type(f.type.value_type) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    return table.cast(pa.schema(fields, metadata=table.schema.metadata))


def _joined(a: pa.Table, b: pa.Table) -> pa.Table:
    import pyarrow as pa

    if not a.num_rows:
        return b
    return pa.concat_tables([a, b], promote_options="permissive")
