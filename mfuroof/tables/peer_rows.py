"""Rows of a benchmark file as another program reads it: in file order, the first line taken for a header."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mfuroof._types import F64, I64, U8, freeze
from mfuroof.core.sources import CLAMPED, EXACT, INTERPOLATED, SUBSTITUTED
from mfuroof.lookup import Details
from mfuroof.tables.bench_file import BenchFile

__all__ = ["Steps", "answer", "first_seen", "peer_rows", "steps_by_last"]

Steps = tuple[F64, F64, I64, F64, I64]
"""GEMM sites and the steps of each: k, n, offsets, where a step starts in m, and the row it reads."""


def peer_rows(file: BenchFile, names: tuple[str, ...], keep: Any = None) -> list[F64]:
    """Return columns (n,) as frozen float64, without the first row of a file that has no header."""
    chosen = np.ones(len(file), dtype=bool) if keep is None else keep.copy()
    if not file.has_header:
        chosen[0] = False
    return [freeze(np.asarray(file.columns[name])[chosen]) for name in names]


def first_seen(k: F64, n: F64) -> tuple[F64, F64, list[I64]]:
    """Return the distinct (k, n) in order of first appearance, and the rows of each."""
    rows: dict[tuple[float, float], list[int]] = {}
    for i, pair in enumerate(zip(k.tolist(), n.tolist(), strict=True)):
        rows.setdefault(pair, []).append(i)
    pairs = np.array(list(rows), dtype=np.float64).reshape(-1, 2)
    return freeze(pairs[:, 0]), freeze(pairs[:, 1]), [np.array(r, dtype=np.int64) for r in rows.values()]


def steps_by_last(m: F64, k: F64, n: F64) -> Steps:
    """Compile the rule "at each (k, n) the last row in file order whose m does not exceed the query"."""
    site_k, site_n, groups = first_seen(k, n)
    offsets, starts, rows = [0], [], []
    for group in groups:
        order = np.argsort(m[group], kind="stable")
        ascending = m[group][order]
        last = np.append(ascending[1:] != ascending[:-1], True)
        starts.append(ascending[last])
        rows.append(group[np.maximum.accumulate(order)[last]])
        offsets.append(offsets[-1] + int(last.sum()))
    every = freeze(np.concatenate([[], *starts])), freeze(np.concatenate([[], *rows]), np.int64)
    return site_k, site_n, freeze(offsets, np.int64), *every


def answer(
    values: F64,
    at: Sequence[F64],
    details: bool,
    describe: Callable[[], tuple[Sequence[F64], Sequence[F64], Any]],
) -> Details:
    """Return values, with where they come from if it is wanted.

    Parameters
    ----------
    values
        Answers (q,).
    at
        Coordinates of the queries, (q,) each.
    details
        Whether source and distance are wanted; empty otherwise.
    describe
        Called if so: the measured point that each answer leans on, NaN for a default (a list like ``at``); the rows
        of the file (likewise); and whether something stands in for what was asked.
    """
    if not details:
        return Details(values, np.empty(0, np.uint8), np.empty(0))
    points, columns, substituted = describe()
    distance, inside = np.zeros(values.size), np.ones(values.size, dtype=bool)
    for q, p, column in zip(at, points, columns, strict=True):
        distance = np.maximum(distance, _octaves(q, p))
        inside &= (q >= column.min(initial=np.inf)) & (q <= column.max(initial=-np.inf))
    source: U8 = np.where(distance == 0.0, EXACT, np.where(inside, INTERPOLATED, CLAMPED)).astype(np.uint8)
    source[np.isnan(distance) | substituted] = SUBSTITUTED
    distance[np.isnan(distance)] = np.inf
    return Details(values, source, distance)


def _octaves(q: F64, p: F64) -> F64:
    """Distance of `mfuroof.core.search.octaves`, for arrays that are not negative."""
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.abs(np.log2(q) - np.log2(p))
    near_zero = np.abs(np.arcsinh(q) - np.arcsinh(p)) / np.log(2.0)
    return np.where(q == p, 0.0, np.where((q > 0.0) & (p > 0.0), apart, near_zero))
