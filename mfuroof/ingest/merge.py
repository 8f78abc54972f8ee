"""Reduce repeated measurements of one key to one latency, and say how far they disagreed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._types import F64, I64
from mfuroof.tables.schema import LATENCY, arrow_schema, family

__all__ = ["lower_of", "merge_repeated"]


def merge_repeated(
    name: str, columns: Mapping[str, Any], latency_s: F64, kernels: Any
) -> tuple[pa.Table, dict[str, Any]]:
    """Sort by the keys and reduce each key to one latency: the median per kernel source, then the fastest source.

    Engines pick the faster of two kernels (by tuning or by a rule of their own), while repeated runs of one kernel
    scatter around its time; hence the smallest over kernels and the median over runs.

    Parameters
    ----------
    name
        Family.
    columns
        One array of shape (rows,) per key column: strings or integers.
    latency_s
        Measured latencies, shape (rows,). [s]
    kernels
        Kernel source of each row, shape (rows,).

    Returns
    -------
    table, record
        The table under the family's schema, and what was merged: ``keys`` measured more than once, ``rows_merged``
        beyond the first, and, where there are any, the median and the largest ratio between two latencies of a key.
    """
    spec = family(name)
    codes: list[I64] = []
    for key in spec.keys:
        values = np.asarray(columns[key])
        codes.append(np.unique(values, return_inverse=True)[1] if values.dtype.kind == "U" else values)
    _, kernel_codes = np.unique(kernels, return_inverse=True)
    order = np.lexsort([latency_s, kernel_codes, *reversed(codes)])
    latency, kernel = latency_s[order], kernel_codes[order]
    new_key = np.ones(order.size, dtype=bool)
    if order.size:
        new_key[1:] = np.logical_or.reduce([np.diff(c[order]) != 0 for c in codes])
    new_run = new_key.copy()
    new_run[1:] |= np.diff(kernel) != 0
    run_start = np.flatnonzero(new_run)
    run_size = np.diff(np.append(run_start, order.size))
    medians = 0.5 * (latency[run_start + (run_size - 1) // 2] + latency[run_start + run_size // 2])
    key_start = np.flatnonzero(new_key)
    first_run = np.searchsorted(run_start, key_start)
    merged = np.minimum.reduceat(medians, first_run) if order.size else medians
    rows = order[key_start]
    unique = {key: np.asarray(columns[key])[rows] for key in spec.keys}
    typed = [
        pa.array(unique[c.name].tolist(), pa.string()).dictionary_encode()
        if c.kind == "name"
        else pa.array(merged if c.kind == "time" else unique[c.name], c.arrow_type)
        for c in spec.columns
    ]
    table = pa.Table.from_arrays(typed, schema=arrow_schema(name))
    return table, _repetition(table, latency, key_start, new_run)


def _repetition(table: pa.Table, latency: F64, key_start: I64, new_run: Any) -> dict[str, Any]:
    sizes = np.diff(np.append(key_start, latency.size))
    many = sizes > 1
    record: dict[str, Any] = {"keys": int(many.sum()), "rows_merged": int(latency.size - key_start.size)}
    if not record["keys"]:
        return record
    low, high = np.minimum.reduceat(latency, key_start), np.maximum.reduceat(latency, key_start)
    ratio = high / low
    worst = int(np.argmax(ratio))
    runs = np.add.reduceat(new_run.astype(np.int64), key_start)
    record["keys_with_several_kernel_sources"] = int((runs > 1).sum())
    record["median_ratio"] = float(np.median(ratio[many]))
    record["largest_ratio"] = float(ratio[worst])
    record["largest_at"] = {c: table.column(c)[worst].as_py() for c in table.column_names if c != LATENCY}
    return record


def lower_of(sibling: pa.Table, own: pa.Table) -> tuple[pa.Table, int]:
    """Return the sibling's keys with the lower of both latencies, and how often that was our own."""
    keys = [name for name in sibling.column_names if name != LATENCY]
    measured = dict(zip(_key_tuples(own, keys), own.column(LATENCY).to_pylist(), strict=True))
    theirs = sibling.column(LATENCY).to_numpy()
    ours = np.asarray([measured.get(key, np.inf) for key in _key_tuples(sibling, keys)])
    at = sibling.column_names.index(LATENCY)
    lowered = sibling.set_column(at, sibling.schema.field(at), pa.array(np.minimum(theirs, ours)))
    return lowered, int((ours < theirs).sum())


def _key_tuples(table: pa.Table, keys: list[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(key).to_pylist() for key in keys), strict=True))
