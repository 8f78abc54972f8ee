"""Rows of a configuration table: typed columns with blanks, and an error text a row."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

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
    """

    table: pa.Table
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.errors = [""] * self.table.num_rows

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
        values = self.table.column(name).to_pylist()
        return [default if v is None or (isinstance(v, str) and not v.strip()) else str(v).strip() for v in values]

    def counts(self, name: str, default: int = 0, minimum: int = 0) -> I64:
        """Return a column of whole numbers; blanks become ``default``, other wrong values an error of their row."""
        out = np.full(len(self), default, np.int64)
        if not self.has(name):
            return out
        for i, value in enumerate(self.table.column(name).to_pylist()):
            if value is None or (isinstance(value, str) and not value.strip()):
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
        """Return the input with answer columns, and ``error``; columns of the same names are replaced."""
        table = self.table
        errors = pa.array([e or None for e in self.errors], pa.string())
        for name, values in {**columns, "error": errors}.items():
            if self.has(name):
                table = table.set_column(table.schema.get_field_index(name), name, values)
            else:
                table = table.append_column(name, values)
        return table


def as_count(value: Any) -> int | None:
    """Return a number or its text as a count, or None if it is none."""
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
