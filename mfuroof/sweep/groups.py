"""Numbers for groups: rows that share the values of some columns share one small integer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import I64
from mfuroof.sweep.block import Block

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["block_groups", "table_groups"]

_MOST = 4
"""Codes there may be for each row before they are numbered anew."""


def block_groups(block: Block, by: Sequence[str]) -> tuple[I64 | None, int]:
    """Return the group of each row (n,) and how many there may be; None and 1 where all rows share one."""
    codes: I64 | None = None
    count = 1
    for name in by:
        values = block.column(name).values
        if values.size != block.rows or block.rows == 1:
            continue  # the same for every row of the block
        codes, count = _joined(codes, count, *_numbered(values), block.rows)
    return codes, count


def table_groups(table: pa.Table, by: Sequence[str]) -> tuple[I64 | None, int]:
    """Return the group of each row of a table (n,) and how many there may be."""
    codes: I64 | None = None
    count = 1
    for name in by:
        column = table.column(name).combine_chunks()
        encoded = column if hasattr(column, "indices") else column.dictionary_encode(null_encoding="encode")
        if encoded.null_count:  # a null is a value like another
            encoded = column.cast(encoded.type.value_type).dictionary_encode(null_encoding="encode")
        one = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        codes, count = _joined(codes, count, one, max(len(encoded.dictionary), 1), table.num_rows)
    return codes, count


def _numbered(values: Any) -> tuple[I64, int]:
    """Return each value's number, and how many there may be; small whole numbers need no sorting."""
    if values.dtype.kind in "iub":
        low, high = int(values.min()), int(values.max())
        if high - low < _MOST * values.size:
            return values.astype(np.int64) - low, high - low + 1
    found, codes = np.unique(values, return_inverse=True)
    return codes.astype(np.int64), found.size


def _joined(codes: I64 | None, count: int, more: I64, size: int, rows: int) -> tuple[I64, int]:
    if codes is None:
        return more, size
    joined = codes * size + more
    if count * size <= _MOST * rows:
        return joined, count * size
    found, dense = np.unique(joined, return_inverse=True)
    return dense.astype(np.int64), found.size
