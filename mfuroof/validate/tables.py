"""Measured tables as columns: from a file, an Arrow table or a mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import F64
from mfuroof.errors import InputError, Problem, TableFormatError
from mfuroof.units import MS

__all__ = ["Columns"]


class Columns:
    """Columns of one table by name; texts are str with an empty one for nothing, numbers float64 with NaN."""

    def __init__(self, source: Any) -> None:
        """Read ``source``: the path of a CSV or Parquet file, an Arrow table, or a mapping of arrays.

        Raises
        ------
        TableFormatError
            The file cannot be read as a table.
        InputError
            It is none of these, or its columns differ in length.
        """
        self.table = _table(source)
        self.length: int = self.table.num_rows

    def __contains__(self, name: str) -> bool:
        return name in self.table.column_names

    def __len__(self) -> int:
        return self.length

    def need(self, *names: str) -> None:
        """Raise `InputError` naming those of ``names`` that are missing."""
        missing = [name for name in names if name not in self]
        if missing:
            there = ", ".join(self.table.column_names)
            raise InputError([Problem(f"column {name}", "nothing", f"a column among {there}") for name in missing])

    def text(self, name: str, default: str = "") -> NDArray[Any]:
        """Return a column as str objects; ``default`` where it or a value is missing."""
        if name not in self:
            return np.array([default] * self.length, dtype=object)
        values = self.table.column(name).to_pylist()
        texts = ("" if v is None or v != v else str(v).strip() for v in values)
        return np.array([text or default for text in texts], dtype=object)

    def number(self, name: str, default: float = float("nan")) -> F64:
        """Return a column as float64; ``default`` where it or a value is missing.

        Raises
        ------
        InputError
            A value that is no number.
        """
        if name not in self:
            return np.full(self.length, default)
        values = self.table.column(name).to_pylist()
        try:
            column = np.array([np.nan if v is None or v == "" else float(v) for v in values])
        except (TypeError, ValueError) as error:
            raise InputError(Problem(f"column {name}", str(error), "numbers")) from error
        return np.where(np.isnan(column), default, column)

    def seconds(self, *names: str) -> F64:
        """Return the first of ``measured_<name>_s, measured_<name>_ms, <name>_s, <name>_ms`` there is; NaN where none.

        Raises
        ------
        InputError
            A value that is no number.
        """
        column = self.time_column(*names)
        if column is None:
            return np.full(self.length, np.nan)
        return self.number(column) * (MS if column.endswith("_ms") else 1.0)

    def time_column(self, *names: str) -> str | None:
        """Return the column that `seconds` reads; None where there is none."""
        spelled = (f"{spelling}_{unit}" for n in names for spelling in (f"measured_{n}", n) for unit in ("s", "ms"))
        return next((column for column in spelled if column in self), None)

    def left_out(self, *measured: str | None) -> list[str]:
        """Return, row by row, which measured values cannot be: given, but not positive and finite; empty for none.

        Parameters
        ----------
        measured
            Columns of measured values; None and columns that are not there are passed over.

        Raises
        ------
        InputError
            A value that is no number.
        """
        texts: list[list[str]] = [[] for _ in range(self.length)]
        for name in measured:
            if name is None or name not in self:
                continue
            given = self.table.column(name).to_pylist()
            values = self.number(name)
            for i in np.flatnonzero(~(np.isfinite(values) & (values > 0))):
                if given[i] is not None and given[i] != "":
                    texts[i].append(f"{name}: found {given[i]!r}, expected a positive finite number")
        return ["; ".join(row) for row in texts]


def _table(source: Any) -> Any:
    import pyarrow as pa

    if isinstance(source, pa.Table):
        return source
    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, Mapping):
        try:
            lists = {str(k): np.asarray(v).ravel().tolist() for k, v in source.items()}
            return pa.table({k: pa.array(v, from_pandas=True) for k, v in lists.items()})  # NaN: nothing was given
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError) as error:
            raise InputError(Problem("table", str(error), "columns of one length")) from error
    if not isinstance(source, str | Path):
        raise InputError(Problem("table", type(source).__name__, "a path, an Arrow table or a mapping of columns"))
    path = Path(source)
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_table(path)
        import pyarrow.csv as pc

        return pc.read_csv(path)
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise TableFormatError(Problem(str(path), str(error), "a CSV or Parquet table")) from error
