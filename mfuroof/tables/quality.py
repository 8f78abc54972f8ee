"""How noisy a table is: rows that a larger shape beats, which no kernel that may pad its input explains."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof.tables.schema import LATENCY, family, key_codes

__all__ = ["beaten_rows"]


def beaten_rows(table: pa.Table, name: str) -> dict[str, Any]:
    """Count the rows slower than a larger shape of the same curve.

    Parameters
    ----------
    table
        Validated table of the family; a curve is the rows that differ in the last key column alone.
    name
        Family.

    Returns
    -------
    dict
        ``rows`` in curves of two or more, how many of them take more than 1.1 and more than 2 times as long as some
        larger shape of their curve, and, where there are any, the largest such ratio with its keys. Values that
        single interruptions of a measurement have produced show up here; none of them was changed.
    """
    *leading, axis = family(name).keys
    latency = table.column(LATENCY).to_numpy()
    cut = np.zeros(max(table.num_rows - 1, 0), dtype=bool)
    for column in leading:
        cut |= np.diff(key_codes(table, column)) != 0
    bounds = [0, *(np.flatnonzero(cut) + 1).tolist(), table.num_rows]
    ratio = np.ones(table.num_rows)
    rows = 0
    for start, stop in pairwise(bounds):
        curve = latency[start:stop]
        ratio[start:stop] = curve / np.minimum.accumulate(curve[::-1])[::-1]
        rows += stop - start if stop - start > 1 else 0
    record: dict[str, Any] = {
        "axis": axis,
        "rows": rows,
        "slower_than_a_larger_shape_by_a_tenth": int((ratio > 1.1).sum()),
        "slower_than_a_larger_shape_twofold": int((ratio > 2.0).sum()),
    }
    if rows and ratio.max() > 1.0:
        worst = int(np.argmax(ratio))
        record["largest_ratio"] = float(ratio[worst])
        record["largest_at"] = {key: table.column(key)[worst].as_py() for key in family(name).keys}
    return record
