"""The best rows of each group: `TopK`, with one row a group by default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, I64
from mfuroof.sweep.reduce_picks import Picks
from mfuroof.sweep.reduction import column_names, condition, known_columns, number_columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TopK"]


@dataclass(frozen=True)
class TopK:
    """The ``k`` rows with the most (or least) of one column, in each group; of equals the earlier one.

    Parameters
    ----------
    objective
        Column that is compared; rows where it is NaN are never picked.
    by
        Columns that make groups; none for the whole sweep.
    k
        Rows of each group.
    largest
        Whether more is better.
    where
        Condition on the columns that rows must meet, see `mfuroof.expressions`; None for none.
    must_fit
        Whether rows that are known not to fit the memory are left out, whatever ``where`` says.

    Raises
    ------
    InputError
        ``k`` is no positive number.

    Examples
    --------
    >>> TopK("tokens_per_s_per_gpu", by=("gpu", "tp_size"), where="fits and step_time_s <= 0.05").k
    1
    """

    objective: str
    by: str | Sequence[str] = ()
    k: int = 1
    largest: bool = True
    where: str | None = None
    must_fit: bool = False

    def __post_init__(self) -> None:
        problems = Problems()
        object.__setattr__(self, "by", column_names(self.by))
        object.__setattr__(self, "k", problems.positive_int("k", self.k))
        problems.raise_if_any()

    @property
    def objectives(self) -> tuple[tuple[str, bool], ...]:
        """The column and its direction, for `Picks`."""
        return ((self.objective, self.largest),)

    def check(self, schema: pa.Schema) -> None:
        """Raise where a column is not known."""
        number_columns(schema, (self.objective,))
        known_columns(schema, self.by, "group by")
        condition(self.where, schema)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"kind": "top", "objective": self.objective, "by": list(self.by), "k": self.k,
                "largest": self.largest, "where": self.where, "must_fit": self.must_fit}  # fmt: skip

    def start(self, schema: pa.Schema) -> Picks:
        """Return an empty state."""
        return Picks(self, condition(self.where, schema), schema)

    def restored(self, schema: pa.Schema, table: pa.Table) -> Picks:
        """Return the state of a table."""
        return Picks.restored(self, condition(self.where, schema), schema, table)

    def chosen(self, groups: I64 | None, count: int, values: Sequence[F64], positions: I64) -> I64:
        """Return the best rows, see `PickRule`."""
        value = values[0]
        if self.k == 1 and groups is None:
            return np.flatnonzero(value == value.max())[:1] if _rises(positions) else _first(value, positions)
        if self.k == 1 and groups is not None and _rises(positions):
            best = np.full(count, -np.inf)
            np.maximum.at(best, groups, value)
            ahead = np.flatnonzero(value == best[groups])
            return ahead[np.unique(groups[ahead], return_index=True)[1]]
        if groups is None:
            if value.size > 4 * self.k:  # what is below the k-th best cannot be picked
                ahead = np.flatnonzero(value >= np.partition(value, -self.k)[-self.k])
                return ahead[np.lexsort((positions[ahead], -value[ahead]))[: self.k]]
            return np.lexsort((positions, -value))[: self.k]
        order = np.lexsort((positions, -value, groups))
        ordered = groups[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        rank = np.arange(order.size) - np.repeat(first, np.diff(np.append(first, order.size)))
        return order[rank < self.k]


def _rises(positions: I64) -> bool:
    return bool(positions.size < 2 or (positions[1:] > positions[:-1]).all())


def _first(value: F64, positions: I64) -> I64:
    return np.lexsort((positions, -value))[:1]
