"""Which rows win: the best of each group, and the Pareto front of each group.

The rules of `mfuroof.sweep` do the choosing; here they are made to depend on what rows hold, not on where they stand.
Values are larger-is-better and never NaN; groups are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.expressions import Column, Texts
from mfuroof.queries.columns import order_keys
from mfuroof.sweep.reduce_pareto import Pareto
from mfuroof.sweep.reduce_topk import TopK

__all__ = ["Reduce", "front_rows", "group_codes", "top_rows"]

Reduce = Callable[["F64", "I64", "Sequence[np.ndarray] | None"], "I64"]
"""From values (k, n), groups (n,) and ties (each (n,); None where not at hand, then all equal rows stay) to rows."""

_FRONT = Pareto({"first": "max", "second": "max"})


def group_codes(columns: Sequence[Column], rows: int) -> I64:
    """Return the number of each row's group; groups are numbered in the order of their keys, missing ones last."""
    codes = np.zeros(rows, np.int64)
    for column in columns:
        if isinstance(column, Texts) and len(column.names) < rows:  # cheaper than sorting all rows
            own = order_keys(Texts(np.arange(-1, len(column.names)), column.names))
            place = np.unique(own, return_inverse=True)[1].ravel()
            more = place[column.codes + 1]
        else:
            more = np.unique(order_keys(column), return_inverse=True)[1].ravel()
        codes = codes * (int(more.max(initial=0)) + 1) + more
        if codes.size and codes.max() > rows:  # keep the numbers small, whatever the number of columns
            codes = np.unique(codes, return_inverse=True)[1].ravel()
    return codes


def top_rows(count: int) -> Reduce:
    """Return the reduction to the ``count`` rows of the largest value in each group, best first."""
    rule = TopK("value", k=count)

    def reduce(values: F64, groups: I64, ties: Sequence[np.ndarray] | None) -> I64:
        value, rows = values[0], np.arange(values.shape[1])
        if not rows.size:
            return rows
        number = int(groups.max()) + 1
        positions = rows
        if ties:
            positions = np.empty_like(rows)
            positions[np.lexsort(tuple(reversed(ties)))] = rows
        best = rule.chosen(groups if number > 1 else None, number, [value], positions)
        if ties is not None:
            return best
        least = np.full(number, np.inf)
        np.minimum.at(least, groups[best], value[best])
        return np.flatnonzero(value >= least[groups])

    return reduce


def front_rows(values: F64, groups: I64, ties: Sequence[np.ndarray] | None) -> I64:
    """Return the rows of each group that no other row of it dominates; of equal rows all."""
    if not values.shape[1]:
        return np.empty(0, np.int64)
    order = np.lexsort((*reversed(ties or ()), *(-v for v in values[::-1]), groups))
    new = np.diff(groups[order], prepend=-1) != 0
    for value in values:
        new[1:] |= value[order[1:]] != value[order[:-1]]
    points = order[new]  # equal rows are one point
    chosen = _FRONT.chosen(groups[points], int(groups.max()) + 1, [v[points] for v in values], np.arange(points.size))
    on_front = np.zeros(points.size, bool)
    on_front[chosen] = True
    return order[on_front[np.cumsum(new) - 1]]
