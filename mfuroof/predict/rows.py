"""Rows of a configuration table: typed columns with blanks, and an error text a row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mfuroof._boundary import MAX_COUNT
from mfuroof._types import I64
from mfuroof.errors import InputError, Problem

__all__ = ["Rows"]


@dataclass
class Rows:
    """A table being answered: columns are read once, problems are noted by row.

    Attributes
    ----------
    table
        The input as it came.
    errors
        One text a row; empty while nothing is wrong with it.
    notes
        One text a row: what was assumed, and what of the row could not apply.

    Raises
    ------
    InputError
        Two columns have the same name.
    """

    table: pa.Table
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        names = self.table.schema.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(Problem("table", f"more than one column {', '.join(twice)}", "each name once"))
        self.errors = [""] * self.table.num_rows
        self.notes = [""] * self.table.num_rows

    def __len__(self) -> int:
        return len(self.errors)

    def has(self, name: str) -> bool:
        """Say whether the table has a column of that name."""
        return name in self.table.schema.names

    def require(self, *names: str) -> None:
        """Raise `InputError` naming every column that is not there."""
        missing = [name for name in names if not self.has(name)]
        if missing:
            raise InputError(
                Problem("table", f"no column {', '.join(missing)}", f"the columns {', '.join(names)}")
            )

    def texts(self, name: str, default: str | None = None) -> list[str | None]:
        """Return a column of names; blanks and nulls become ``default``."""
        if not self.has(name):
            return [default] * len(self)
        return [default if is_blank(v) else str(v).strip() for v in self.table.column(name).to_pylist()]

    def blanks(self, name: str) -> NDArray[np.bool_]:
        """Return where a column has nothing; everywhere if there is no such column."""
        if not self.has(name):
            return np.ones(len(self), bool)
        return np.array([is_blank(v) for v in self.table.column(name).to_pylist()], bool)

    def counts(self, name: str, default: int = 0, minimum: int = 0) -> I64:
        """Return a column of whole numbers; blanks become ``default``, other wrong values an error of their row."""
        out = np.full(len(self), default, np.int64)
        if not self.has(name):
            return out
        for i, value in enumerate(self.table.column(name).to_pylist()):
            if is_blank(value):
                continue
            number = as_count(value)
            if number is None or number < minimum:
                self.fail(i, f"{name}: found {value!r}, expected a whole number in [{minimum}, 2**40]")
            else:
                out[i] = number
        return out

    def fail(self, row: int, text: str) -> None:
        """Note a problem of one row."""
        self.errors[row] = f"{self.errors[row]}; {text}" if self.errors[row] else text

    def note(self, row: int, text: str) -> None:
        """Note what is to be known about one row, once."""
        if text and text not in self.notes[row]:
            self.notes[row] = f"{self.notes[row]}; {text}" if self.notes[row] else text

    def groups(self, keys: Mapping[str, Any]) -> Iterator[tuple[tuple[Hashable, ...], I64]]:
        """Yield the rows without errors that share all ``keys``, with the values they share."""
        found: dict[tuple[Hashable, ...], list[int]] = {}
        for i, key in enumerate(zip(*keys.values(), strict=True)):
            if not self.errors[i]:
                plain = tuple(int(k) if isinstance(k, np.integer) else k for k in key)
                found.setdefault(plain, []).append(i)
        for key, rows in found.items():
            yield key, np.array(rows, np.int64)

    def answered(self, columns: Mapping[str, pa.Array]) -> pa.Table:
        """Return the input with answer columns, ``note`` and ``error``; columns of the same names are replaced."""
        table = self.table
        notes, errors = (pa.array([t or None for t in texts], pa.string()) for texts in (self.notes, self.errors))
        for name, values in {**columns, "note": notes, "error": errors}.items():
            if self.has(name):
                table = table.set_column(table.schema.get_field_index(name), name, values)
            else:
                table = table.append_column(name, values)
        return table


def is_blank(value: Any) -> bool:
    """Say whether a cell has nothing in it; NaN is something."""
    return value is None or (isinstance(value, str) and not value.strip())


def as_count(value: Any) -> int | None:
    """Return a number or its text as a count, or None if it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not np.isfinite(number) or number != np.floor(number) or abs(number) > MAX_COUNT:
        return None
    return int(number)


def scatter(
    n: int, parts: list[tuple[I64, np.ndarray]], make: Callable[[np.ndarray, np.ndarray], pa.Array]
) -> pa.Array:
    """Return a column of ``n`` rows from values by row; rows without one are null."""
    values = np.zeros(n, parts[0][1].dtype if parts else np.float64)
    known = np.zeros(n, bool)
    for rows, some in parts:
        values[rows] = some
        known[rows] = True
    return make(values, ~known)
