"""Rows of a sweep on their way: numpy columns that are as long as the rows, or one value for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import I64
from mfuroof.errors import UnknownNameError
from mfuroof.expressions import Expression, Texts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["BOOL", "Block", "Column", "sample", "tested"]

BOOL: TypeAlias = NDArray[np.bool_]


class Column(NamedTuple):
    """Values of some rows.

    Attributes
    ----------
    values
        Numbers or booleans, (n,), or (1,) where all rows share one. Of a text column the codes, -1 for none.
    names
        Texts that the codes of a text column stand for; None for a column of numbers.
    known
        Whether there are values; False makes the whole column null.
    """

    values: Any
    names: tuple[str, ...] | None = None
    known: bool = True


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows of one case, with every column of the result; read-only by agreement.

    Attributes
    ----------
    case
        Number of the case.
    start
        Position in the sweep of the first row of the chunk it was made from.
    rows
        Number of rows n.
    columns
        `Column` by name, in the order of the result.
    kept
        Offset from ``start`` of each row (n,) where some of the chunk were left out; None where none were.
    """

    case: int
    start: int
    rows: int
    columns: Mapping[str, Column]
    kept: I64 | None = None

    def column(self, name: str) -> Column:
        """Return a column; `UnknownNameError` if there is none of that name."""
        if name not in self.columns:
            raise UnknownNameError("column", name, self.columns)
        return self.columns[name]

    def values(self, name: str) -> Any:
        """Return the values of a column (n,), spread where they are one; codes of a text column."""
        column = self.column(name).values
        return column if column.size == self.rows else np.broadcast_to(column, self.rows)

    @property
    def positions(self) -> I64:
        """Position of each row in the sweep (n,): what tells equal rows apart, whatever was computed first."""
        return self.start + (np.arange(self.rows) if self.kept is None else self.kept)

    def test(self, condition: Expression) -> BOOL:
        """Return whether each row meets a condition (n,); False where it cannot be told."""
        return np.broadcast_to(tested(condition, self.columns), self.rows)

    def select(self, mask: BOOL) -> Block:
        """Return the rows where ``mask`` (n,) is true."""
        at = np.flatnonzero(mask)
        if at.size == self.rows:
            return self
        return replace(self, rows=at.size, columns=self._taken(at), kept=at if self.kept is None else self.kept[at])

    def _taken(self, at: I64) -> dict[str, Column]:
        whole = self.rows
        return {
            name: c if c.values.size != whole or whole == 1 else c._replace(values=c.values[at])
            for name, c in self.columns.items()
        }

    def to_arrow(self, schema: pa.Schema) -> pa.RecordBatch:
        """Return the columns of ``schema`` as a record batch; what is contiguous and of that type is not copied."""
        import pyarrow as pa

        arrays = [_array(self.column(field.name), field.type, self.rows) for field in schema]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def picked(self, at: I64, schema: pa.Schema) -> pa.RecordBatch:
        """Return the rows ``at`` (positions within the block) as a record batch."""
        return replace(self, rows=at.size, columns=self._taken(at)).to_arrow(schema)


def sample(columns: Mapping[str, bool]) -> dict[str, Column]:
    """Return one row of columns, by name and whether it holds text: to try a condition before there are rows."""
    text, number = Column(np.zeros(1, np.int16), ("",)), Column(np.ones(1))
    return {name: text if is_text else number for name, is_text in columns.items()}


def tested(condition: Expression, columns: Mapping[str, Column]) -> BOOL:
    """Return whether rows meet a condition, (n,), (1,) or a scalar."""
    given: dict[str, Any] = {}
    for name in condition.names:
        values, names, known = columns[name]
        if names is not None:
            given[name] = Texts(values, names)
        elif known:
            given[name] = values
        else:
            given[name] = (np.zeros(1, np.bool_),) * 2 if values.dtype == np.bool_ else np.full(1, np.nan)
    return condition.test(given)


def _array(column: Column, kind: pa.DataType, n: int) -> Any:
    import pyarrow as pa

    if not column.known:
        return pa.nulls(n, kind)
    values = column.values
    if column.names is None:
        return pa.array(values if values.size == n else np.full(n, values[0]), kind)
    if values.size == 1 and values[0] < 0:
        return pa.nulls(n, kind)
    codes = (values if values.size == n else np.full(n, values[0])).astype(kind.index_type.to_pandas_dtype())
    some = codes < 0
    index = pa.array(codes, mask=some) if some.any() else pa.array(codes)
    return pa.DictionaryArray.from_arrays(index, pa.array(column.names, pa.string()), safe=False)
