"""One slice of a measured family: the rows that share every key but one or two, compiled into a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mfuroof.errors import InputError, MissingTableError, Problem
from mfuroof.lookup.run import Table
from mfuroof.ops.select import holdings, rows
from mfuroof.tables.compile import compile_1d, compile_2d, compile_sites
from mfuroof.tables.schema import family as family_of
from mfuroof.tables.store import KernelTables

__all__ = ["Slice", "axes_of", "slice_of"]

COUNTS = ("batch_size", "new_tokens", "kv_len", "tokens", "elements")
"""Columns a lookup varies over: the counts that end a family's key."""
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Slice:
    """Measured latencies of one configuration.

    Attributes
    ----------
    where
        Key columns that all rows share; those that were not asked for are there too.
    table
        Latencies over what remains: a curve, a grid, or GEMM sites. [s]
    """

    where: dict[str, Any]
    table: Table


def axes_of(family: str) -> tuple[str, ...]:
    """Return the columns that a lookup in a family varies over.

    Raises
    ------
    UnknownNameError
        No such family.
    """
    keys = family_of(family).keys
    return ("m", "k", "n") if family == "gemm" else tuple(key for key in keys if key in COUNTS)


def slice_of(tables: KernelTables, family: str, axes: Sequence[str] | None = None, **where: str | int) -> Slice:
    """Return the rows of a family that match, as a table over its axes.

    Parameters
    ----------
    tables
        Of one GPU and engine.
    family
        One of its families.
    axes
        One or two columns to vary over, or None for those of `axes_of`; a column that is given in ``where`` is none.
    **where
        Key column = value. A key may be left out where only one value remains.

    Raises
    ------
    UnknownNameError
        No such family or key column.
    InputError
        A key was left out although several values remain, or what is left to vary over is no curve and no grid.
    MissingTableError
        The family was not measured there, or nothing of what the keys ask for.

    Examples
    --------
    >>> from mfuroof.tables.store import load_tables
    >>> grid = slice_of(load_tables("h100_sxm"), "gemm", ("n", "m"), dtype="bf16", k=4096)
    >>> grid.table.axes, grid.where
    (('n', 'm'), {'dtype': 'bf16', 'k': 4096})
    """
    spec = family_of(family)
    free = tuple(axes) if axes is not None else tuple(a for a in axes_of(family) if a not in where)
    for name in free:
        spec.column(name)
    if len(free) not in (1, 2) and free != ("m", "k", "n"):
        problem = Problem(f"axes of {family}", ", ".join(free) or "none", "one or two key columns that are not given")
        raise InputError(problem)
    found = tables.family(family, **where)
    shared: dict[str, Any] = dict(where)
    for key in spec.keys:
        if key in free:
            continue
        there = found.column(key).unique().to_pylist()
        if key not in where and len(there) > 1:
            options = ", ".join(map(str, sorted(there)))
            raise InputError(Problem(key, "nothing", f"one of {options}", f"Add {key}=..."))
        shared[key] = there[0] if there else where.get(key)
    if not found.num_rows:
        sought = f"{family} of {tables.gpu} ({tables.engine}) with {', '.join(f'{k}={v}' for k, v in where.items())}"
        have = holdings(tables, family, *where)
        raise MissingTableError(sought, [*have[:_SHOWN], *(["..."] if len(have) > _SHOWN else [])])
    columns = rows(tables, family, **where)
    latency = columns["latency_s"]
    if free == ("m", "k", "n"):
        table: Table = compile_sites(columns["m"], columns["k"], columns["n"], latency)
    elif len(free) == 1:
        table = compile_1d(free[0], columns[free[0]], latency)
    else:
        table = compile_2d((free[0], free[1]), columns[free[0]], columns[free[1]], latency)
    return Slice({key: value for key, value in shared.items() if value is not None}, table)
