"""A table of cases: an Arrow table, or a CSV or Parquet file, whose rows take the place of some axes of a sweep."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import Problems, count_array
from mfuroof._table_files import read_table
from mfuroof._types import I64
from mfuroof.errors import InputError, Problem, UnknownNameError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CaseTable"]

ALIASES = {"tp": "tp_size", "pp": "pp_size", "ep": "ep_size", "dp": "dp_size", "prefill_tokens": "prefill_new_tokens"}
"""Short column names that are understood as well."""


@dataclass(frozen=True, eq=False)
class CaseTable:
    """The columns of a table, each an axis of the sweep.

    Attributes
    ----------
    texts
        Columns of what is constant over a case: distinct values in order of appearance, and the one of each row (n,).
    counts
        Columns of whole numbers (n,).
    rows
        Number of rows n.
    digest
        SHA-256 of the contents.
    """

    texts: Mapping[str, tuple[list[Any], I64]]
    counts: Mapping[str, I64]
    rows: int
    digest: str

    @classmethod
    def read(cls, source: Any, case_axes: Iterable[str], shape_axes: Iterable[str]) -> CaseTable:
        """Read a table.

        Parameters
        ----------
        source
            An Arrow table or record batch, or the path of a ``.csv`` or ``.parquet`` file.
        case_axes, shape_axes
            Names of columns that are read as texts and as whole numbers.

        Raises
        ------
        InputError
            No such file or no table, no rows, nulls, or counts that are none.
        UnknownNameError
            A column that is no axis.
        TableFormatError
            A damaged file.
        """
        table = _opened(source)
        names = [ALIASES.get(name, name) for name in table.schema.names]
        case_axes, shape_axes = tuple(case_axes), tuple(shape_axes)
        problems = Problems()
        for name in names:
            if name not in (*case_axes, *shape_axes):
                remedy = "Leave out columns that are no axes."
                raise UnknownNameError("column of the table of cases", name, (*case_axes, *shape_axes), remedy)
            if names.count(name) > 1:
                problems.add(f"column {name}", f"{names.count(name)} of that name", "one")
        if not table.num_rows or not names:
            problems.add("table of cases", f"{table.num_rows} rows, {len(names)} columns", "at least one of each")
        problems.raise_if_any()
        texts, counts = {}, {}
        digest = hashlib.sha256()
        for name, column in zip(names, table.columns, strict=True):
            if name in shape_axes:
                counts[name] = _counts(name, column, problems)
                digest.update(name.encode() + counts[name].tobytes())
            else:
                texts[name] = _texts(column)
                digest.update(repr((name, texts[name][0])).encode() + texts[name][1].tobytes())
        problems.raise_if_any()
        return cls(texts, counts, table.num_rows, digest.hexdigest())

    @property
    def names(self) -> tuple[str, ...]:
        """Axes that the table takes the place of."""
        return (*self.texts, *self.counts)


def _opened(source: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(source, pa.RecordBatch):
        return pa.Table.from_batches([source])
    if isinstance(source, pa.Table):
        return source
    expected = "an Arrow table, or the path of a .csv or .parquet file"
    if not isinstance(source, str | Path):
        raise InputError(Problem("table of cases", f"a {type(source).__name__}", expected))
    return read_table(source)


def _counts(name: str, column: pa.ChunkedArray, problems: Problems) -> I64:
    if column.null_count:
        row = int(np.flatnonzero(column.is_null().to_numpy())[0])
        problems.add(f"column {name}, row {row}", "nothing", "a whole number in [0, 2**40]")
        return np.zeros(len(column), np.int64)
    return count_array(f"column {name}, row ", column.to_numpy(), problems)


def _texts(column: pa.ChunkedArray) -> tuple[list[Any], I64]:
    encoded = column.combine_chunks()
    if not hasattr(encoded, "indices"):
        encoded = encoded.dictionary_encode(null_encoding="encode")
    values = [v if not isinstance(v, str) else v.strip() or None for v in encoded.dictionary.to_pylist()]
    codes = encoded.indices
    if codes.null_count:
        codes = codes.fill_null(len(values))
        values.append(None)
    return values, codes.to_numpy(zero_copy_only=False).astype(np.int64)
