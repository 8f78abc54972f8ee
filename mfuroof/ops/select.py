"""Rows of the measured tables as numpy columns, and short descriptions of what a family holds."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mfuroof.tables.store import KernelTables

__all__ = ["holdings", "rows"]


def rows(tables: KernelTables, family: str, **where: str | int) -> dict[str, np.ndarray]:
    """Return the rows of ``family`` that match, as float64 or int64 columns by name; text columns are left out.

    A family that was not measured gives the same as no match: an empty mapping of columns has length 0.
    """
    if not tables.has(family):
        return {"latency_s": np.empty(0)}
    table = tables.family(family, **where)
    out = {}
    for name in table.schema.names:
        kind = table.schema.field(name).type
        if pa.types.is_floating(kind):
            out[name] = table.column(name).to_numpy()
        elif pa.types.is_integer(kind):
            out[name] = table.column(name).to_numpy().astype(np.int64)
    return out


def holdings(tables: KernelTables, family: str, *columns: str) -> list[str]:
    """Return the distinct combinations of ``columns`` in ``family``, as short texts for error messages."""
    if not tables.has(family):
        return []
    table = tables.family(family).select(list(columns))
    plain = table.cast(
        pa.schema([(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type) for f in table.schema])
    )
    distinct = plain.group_by(list(columns)).aggregate([]).to_pylist()
    return sorted(" ".join(str(row[c]) for c in columns) for row in distinct)
