"""What happens outside the measured range: the policies beyond what a kernel can do by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from mfuroof._boundary import choice
from mfuroof._types import F64, U8, ArrayLike, freeze
from mfuroof.core import gemm, grid, lookup
from mfuroof.core.sources import CLAMPED, EXTRAPOLATED
from mfuroof.errors import InputError, Problem
from mfuroof.lookup.run import Table, axes_of, run_values
from mfuroof.tables.compiled import Table1D, Table2D

__all__ = ["POLICIES", "Outside", "Roofline", "edges", "hold", "policies_of", "raise_outside"]

Outside: TypeAlias = str | Sequence[str | None] | None
Roofline: TypeAlias = Callable[..., ArrayLike] | tuple[ArrayLike, ArrayLike]

POLICIES = {
    None: lookup.OWN,
    "clamp": lookup.CLAMP,
    "hold": lookup.CLAMP,
    "nan": lookup.BLANK,
    "raise": lookup.BLANK,
}


def policies_of(axes: int, outside: Outside) -> tuple[str | None, ...]:
    """Return one policy name per axis."""
    names = (outside,) * axes if outside is None or isinstance(outside, str) else tuple(outside)
    if len(names) != axes:
        raise InputError(Problem("outside", f"{len(names)} policies", f"one, or one for each of {axes} axes"))
    known = [name for name in POLICIES if name]
    return tuple(None if name is None else choice("outside policy", name, known) for name in names)


def raise_outside(table: Table, rule: int, names: tuple[str | None, ...], at: list[F64], out: F64) -> None:
    """Raise for the first query that an axis with the policy "raise" leaves without an answer."""
    unanswered = np.isnan(out)
    for point in at:
        unanswered &= ~np.isnan(point)
    rows = np.flatnonzero(unanswered)
    if not rows.size:
        return
    asked = [freeze(point[rows]) for point in at]
    # A query that has an answer once the raising axes clamp is outside on one of them.
    relaxed = [lookup.CLAMP if name == "raise" else POLICIES[name] for name in names]
    answers, _, _ = run_values(table, rule, relaxed, asked)
    found = np.flatnonzero(~np.isnan(answers))
    if found.size:
        first = found[0]
        where = ", ".join(f"{name} = {point[first]:g}" for name, point in zip(axes_of(table), asked, strict=True))
        raise InputError(Problem(f"query {rows[first]}", where, f"a point within {_extent(table)}"))


def _extent(table: Table) -> str:
    if isinstance(table, Table1D):
        return f"{table.axis} {table.grid[0]:g} .. {table.grid[-1]:g}"
    if isinstance(table, Table2D):
        rows = f"{table.axes[0]} {table.rows[0]:g} .. {table.rows[-1]:g}"
        return f"{rows}, {table.axes[1]} {table.cols.min():g} .. {table.cols.max():g}, as far as each row goes"
    sites = f"{table.k.size} sites up to k = {table.k.max():g}, n = {table.n.max():g}"
    return f"{sites}, m {table.m.min():g} .. {table.m.max():g}"


def hold(
    table: Table,
    rule: int,
    names: tuple[str | None, ...],
    at: list[F64],
    shape: tuple[int, ...],
    roofline: Roofline,
    out: F64,
    source: U8,
) -> None:
    """Scale clamped values, in place, by the roofline at the query over the roofline at the edge."""
    edge = edges(table, rule, at)
    axes = names if len(names) == len(at) else (names[1], names[0], names[0])  # of GEMM sites: m, then k and n
    target = [point if name == "hold" else place for name, point, place in zip(axes, at, edge, strict=True)]
    moved = np.zeros(out.size, dtype=bool)
    for point, place in zip(target, edge, strict=True):
        moved |= point != place
    rows = np.flatnonzero(moved & ~np.isnan(out))
    if not rows.size:
        return
    if callable(roofline):
        there, here = (np.asarray(roofline(*(p[rows] for p in points)), np.float64) for points in (target, edge))
    else:
        there, here = (np.broadcast_to(np.asarray(r, np.float64), shape).ravel()[rows] for r in roofline)
    good = np.broadcast_to((there > 0.0) & (here > 0.0) & (there < np.inf) & (here < np.inf), rows.shape)
    if not good.all():
        found = f"a value that is not at query {rows[np.flatnonzero(~good)[0]]}"
        raise InputError(Problem("roofline", found, "positive finite values at the query and at the edge"))
    out[rows] *= there / here
    source[rows] = np.where(source[rows] == CLAMPED, EXTRAPOLATED, source[rows])


def edges(table: Table, rule: int, at: list[F64]) -> list[F64]:
    """Return every query moved to the nearest place where the table answers."""
    if isinstance(table, Table1D):
        return [np.clip(at[0], table.grid[0], table.grid[-1])]
    at = [freeze(point) for point in at]
    places: list[F64] = [np.empty(at[0].size) for _ in at]
    if isinstance(table, Table2D):
        grid.grid_clamp(table.rows, table.offsets, table.cols, rule, *at, *places)
    else:
        gemm.sites_clamp(table.k, table.n, table.offsets, table.m, *at, *places)
    return places
