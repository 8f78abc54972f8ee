"""Arrow columns as the numpy columns that expressions, groups and orders read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import I64
from mfuroof.errors import InputError, Problem
from mfuroof.expressions import Column, Texts

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["column_of", "order_keys", "readable"]


def readable(kind: pa.DataType) -> bool:
    """Return whether a column of this type can be compared: a number, a text or a boolean."""
    import pyarrow as pa

    t = pa.types
    if t.is_dictionary(kind):
        return bool(t.is_string(kind.value_type) or t.is_large_string(kind.value_type))
    plain = t.is_integer(kind) or t.is_floating(kind) or t.is_boolean(kind) or t.is_null(kind)
    return bool(plain or t.is_string(kind) or t.is_large_string(kind))


def column_of(table: pa.Table, name: str) -> Column:
    """Return a column as numbers, booleans or `Texts`; nulls become NaN, a mask, or the code -1.

    Raises
    ------
    InputError
        A column of another type, such as lists or dates.
    """
    import pyarrow as pa

    field = table.schema.field(name)
    if not readable(field.type):
        raise InputError(Problem(f"column {name}", f"type {field.type}", "numbers, texts or booleans"))
    column = table.column(name)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(column, pa.ChunkedArray):  # combining dictionaries may leave chunks, and so does nothing at all
        chunks = column.unify_dictionaries().chunks
        column = pa.concat_arrays(chunks) if chunks else pa.array([], column.type)
    if pa.types.is_boolean(column.type):
        there = np.asarray(column.is_valid())
        return column.fill_null(False).to_numpy(zero_copy_only=False), there
    if pa.types.is_null(column.type):
        return np.full(len(column), np.nan)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return Texts(*_texts(column))


def _texts(column: Any) -> tuple[I64, tuple[str, ...]]:
    import pyarrow.compute as pc

    codes = pc.fill_null(column.indices.cast("int64"), -1).to_numpy(zero_copy_only=False)
    names = column.dictionary.to_pylist()
    first = {name: i for i, name in reversed(list(enumerate(names)))}  # a dictionary may repeat itself
    if None in first or len(first) < len(names):
        place = np.array([-1 if n is None else first[n] for n in names] + [-1], np.int64)
        codes = place[codes]
    return codes, tuple("" if n is None else n for n in names)


def order_keys(column: Column) -> np.ndarray:
    """Return numbers that order the rows of a column: texts by alphabet, missing ones last."""
    if isinstance(column, Texts):
        rank = np.empty(len(column.names) + 1, np.float64)
        places = {name: i for i, name in enumerate(sorted(set(column.names)))}
        rank[: len(column.names)] = [places[name] for name in column.names]
        rank[-1] = np.inf
        return rank[column.codes]
    if isinstance(column, tuple):
        return np.where(column[1], column[0].astype(np.float64), np.inf)
    if column.dtype.kind in "iu":
        return column
    return np.where(np.isnan(column), np.inf, column.astype(np.float64))
