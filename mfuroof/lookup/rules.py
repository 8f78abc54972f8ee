"""The rules by name: what a user calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof._boundary import choice
from mfuroof._types import F64, ArrayLike
from mfuroof.core import lookup as core
from mfuroof.errors import InputError, Problem
from mfuroof.lookup.outside import POLICIES, Outside, Roofline, hold, policies_of, raise_outside
from mfuroof.lookup.run import Details, Table, arrays_of, coordinates, run_details, run_values
from mfuroof.tables.compiled import Table1D

__all__ = ["RULES", "ceiling", "floor", "linear", "loglog", "nearest", "read"]

RULES = {
    "floor": core.FLOOR,
    "ceiling": core.CEILING,
    "nearest_l1": core.NEAREST_L1,
    "nearest_l2": core.NEAREST_L2,
    "linear": core.LINEAR,
    "loglog": core.LOGLOG,
}


def floor(table: Table, *at: ArrayLike, **options: Any) -> Any:
    """Read at the largest measured point that does not exceed the query.

    Parameters
    ----------
    table
        A curve, a grid (the row first, then the column within it) or GEMM sites.
    *at
        Coordinates, broadcast against one another: ``x``; ``row, column``; or ``m, k, n``. [units of the axes]
    **options
        ``outside``, ``roofline``, ``details``, ``threads`` of `read`.

    Returns
    -------
    ndarray of float64 (a scalar for scalars), or `Details`
        Measured values, never blended; NaN where a coordinate is NaN or, by default, below the grid.

    Examples
    --------
    >>> floor(Table1D("seq_len", grid=[1024, 4096], values=[0.52, 0.60]), [512, 4095])
    array([ nan, 0.52])
    """
    return read(table, *at, rule="floor", **options)


def ceiling(table: Table, *at: ArrayLike, **options: Any) -> Any:
    """Read at the smallest measured point that is not below the query; otherwise as `floor`.

    Examples
    --------
    >>> ceiling(Table1D("seq_len", grid=[1024, 4096], values=[0.52, 0.60]), [512, 4095])
    array([0.52, 0.6 ])
    """
    return read(table, *at, rule="ceiling", **options)


def nearest(table: Table, *at: ArrayLike, metric: str = "l1", **options: Any) -> Any:
    """Read at the nearest measured point, by L1 or L2 distance in the units of the axes.

    Ties go to the lower row, then to the nearer column, then to the lower column. Otherwise as `floor`.

    Examples
    --------
    >>> nearest(Table1D("seq_len", grid=[1024, 4096], values=[0.52, 0.60]), [0, 2560, 2561])
    array([0.52, 0.52, 0.6 ])
    """
    return read(table, *at, rule=f"nearest_{choice('metric', metric, ('l1', 'l2'))}", **options)


def linear(table: Table, *at: ArrayLike, **options: Any) -> Any:
    """Blend neighbouring measured points linearly (bilinearly on a grid); otherwise as `floor`.

    Examples
    --------
    >>> float(linear(Table1D("tokens", grid=[16, 32], values=[1.0, 3.0]), 24))
    2.0
    """
    return read(table, *at, rule="linear", **options)


def loglog(table: Table, *at: ArrayLike, **options: Any) -> Any:
    """Blend the logarithms of values over the logarithms of coordinates, all positive; otherwise as `floor`.

    Examples
    --------
    >>> round(float(loglog(Table1D("tokens", grid=[10, 1000], values=[1.0, 100.0]), 100)), 9)
    10.0
    """
    return read(table, *at, rule="loglog", **options)


def read(
    table: Table,
    *at: ArrayLike,
    rule: str,
    outside: Outside = None,
    roofline: Roofline | None = None,
    details: bool = False,
    threads: int = 1,
    out: F64 | None = None,
) -> Any:
    """Read a table by the rule of that name.

    GEMM sites are read in two stages: the site nearest to (k, n) by Euclid among those with k' >= k and n' >= n,
    then the rule along m. Where there is no such site, (k, n) is outside, and "clamp" takes the largest site.

    Parameters
    ----------
    table, *at
        As `floor`.
    rule
        One of `RULES`.
    outside
        Policy of every axis, or a pair: (row, column) of a grid, ((k, n), m) of GEMM sites.
    roofline
        For "hold": a function of the coordinates, or its values (at the queries, at the queries moved to the edge).
        Positive; any unit, as only ratios count.
    details
        Return `Details` instead of the values alone.
    threads
        Threads that share the queries of one call, at least 1. The answer does not depend on it.
    out
        Where to write the values: contiguous float64 of the broadcast shape; allocating one costs a third of a fast
        lookup.

    Raises
    ------
    UnknownNameError
        A rule or policy of another name.
    InputError
        Coordinates that are not numeric or do not broadcast, a wrong number of them, a query outside under "raise",
        "hold" without a usable roofline, or log-log on a table that is not positive.
    """
    code = RULES[choice("rule", rule, RULES)]
    names = policies_of(1 if isinstance(table, Table1D) else 2, outside)
    if "hold" in names and roofline is None:
        raise InputError(Problem("roofline", "None", 'a function or a pair of arrays for outside="hold"'))
    if code == core.LOGLOG:
        _require_positive(table)
    points, shape = coordinates(table, at)
    policies = [POLICIES[name] for name in names]
    flat = None if out is None else _flat_output(out, shape)
    run = run_details if details or "hold" in names else run_values
    flat, source, distance = run(table, code, policies, points, threads, flat)
    if "raise" in names:
        raise_outside(table, code, names, points, flat)
    if roofline is not None and "hold" in names:
        hold(table, code, names, points, shape, roofline, flat, source)
    values = flat.reshape(shape)[()]
    if not details:
        return values
    return Details(values, source.reshape(shape)[()], distance.reshape(shape)[()])


def _flat_output(out: F64, shape: tuple[int, ...]) -> F64:
    usable = isinstance(out, np.ndarray) and out.dtype == np.float64 and out.flags.c_contiguous and out.flags.writeable
    if not usable or out.shape != shape:
        found = f"{getattr(out, 'dtype', type(out).__name__)} of shape {np.shape(out)}"
        raise InputError(Problem("out", found, f"a writeable contiguous float64 array of shape {shape}"))
    return out.reshape(-1)


def _require_positive(table: Table) -> None:
    for column in arrays_of(table):
        if column.dtype.kind == "f" and column.min() <= 0.0:
            found = f"a table that contains {column.min():g}"
            raise InputError(Problem("table", found, 'positive coordinates and values for rule "loglog"'))
