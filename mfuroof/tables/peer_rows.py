"""Rows of a benchmark file as another program reads it: in file order, the first line taken for a header."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof._types import F64, I64, U8, freeze
from mfuroof.core.sources import CLAMPED, EXACT, INTERPOLATED, SUBSTITUTED
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile

__all__ = ["VALUES_ONLY", "describe", "first_seen", "inside_of", "peer_rows", "steps_by_last"]

VALUES_ONLY = (np.empty(0, np.uint8), np.empty(0))
"""Source and distance of answers that nobody asked to describe."""


def peer_rows(file: BenchFile, names: tuple[str, ...], keep: Any = None) -> list[F64]:
    """Return columns (n,) as frozen float64, without the first row of a file that has no header."""
    chosen = np.ones(len(file), dtype=bool) if keep is None else keep.copy()
    if not file.has_header:
        chosen[0] = False
    return [freeze(np.asarray(file.columns[name])[chosen]) for name in names]


def steps_by_last(m: F64) -> tuple[F64, I64]:
    """Steps of the rule "the last row in file order whose m does not exceed the query": starts and rows."""
    order = np.argsort(m, kind="stable")
    rows = np.maximum.accumulate(order)
    last = np.append(m[order][1:] != m[order][:-1], True)
    return freeze(m[order][last]), freeze(rows[last], np.int64)


def first_seen(k: F64, n: F64) -> tuple[list[tuple[float, float]], list[I64]]:
    """Return the distinct (k, n) in order of first appearance, and the rows of each."""
    rows: dict[tuple[float, float], list[int]] = {}
    for i, pair in enumerate(zip(k.tolist(), n.tolist(), strict=True)):
        rows.setdefault(pair, []).append(i)
    return list(rows), [np.array(r, dtype=np.int64) for r in rows.values()]


def _octaves(q: F64, p: F64) -> F64:
    """Distance of `mfuroof.core.search.octaves`, for arrays that are not negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(np.log2(q) - np.log2(p))
    near_zero = np.abs(np.arcsinh(q) - np.arcsinh(p)) / np.log(2.0)
    return np.where(q == p, 0.0, np.where((q > 0.0) & (p > 0.0), apart, near_zero))


def inside_of(at: list[F64], columns: list[F64]) -> Any:
    """Return whether each query (q,) is within the measured range of every column."""
    inside = np.ones(at[0].size, dtype=bool)
    for q, column in zip(at, columns, strict=True):
        inside &= (q >= column.min()) & (q <= column.max())
    return inside


def describe(values: F64, at: list[F64], points: list[F64], inside: Any, substituted: Any) -> Details:
    """Describe answers by the points they lean on.

    Parameters
    ----------
    values
        Answers (q,).
    at, points
        Coordinates of the queries and of the measured points used, (q,) each.
    inside
        Whether each query (q,) is within the measured range.
    substituted
        Whether something else stands in for what was asked: a default (a point of NaN), another configuration, a
        non-zero row.
    """
    distance = np.zeros(values.size)
    for q, p in zip(at, points, strict=True):
        distance = np.maximum(distance, _octaves(q, p))
    distance[np.isnan(distance)] = np.inf
    source: U8 = np.where(distance == 0.0, EXACT, np.where(inside, INTERPOLATED, CLAMPED)).astype(np.uint8)
    source[np.broadcast_to(substituted, source.shape)] = SUBSTITUTED
    return Details(values, source, distance)
