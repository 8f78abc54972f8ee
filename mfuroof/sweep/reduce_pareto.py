"""The Pareto front of each group: rows that no other row beats in everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._boundary import choice
from mfuroof._types import F64, I64
from mfuroof.errors import InputError, Problem
from mfuroof.sweep.reduce_picks import Picks
from mfuroof.sweep.reduction import column_names, condition, known_columns, number_columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Pareto"]


@dataclass(frozen=True)
class Pareto:
    """Rows such that no other of their group is as good in every objective and better in one.

    Of rows that are equal in every objective the first one stays. Rows where an objective is NaN are left out.

    Parameters
    ----------
    goals
        Columns and ``"max"`` or ``"min"``, at least two: a mapping or pairs.
    by
        Columns that make groups; none for the whole sweep.
    where
        Condition on the columns that rows must meet, see `mfuroof.expressions`; None for none.
    must_fit
        Whether rows that are known not to fit the memory are left out, whatever ``where`` says.

    Raises
    ------
    InputError
        Fewer than two goals.
    UnknownNameError
        A direction that is neither ``"max"`` nor ``"min"``.

    Examples
    --------
    >>> Pareto({"tokens_per_s_per_gpu": "max", "step_time_s": "min"}, by="gpu").by
    ('gpu',)
    """

    goals: Any
    by: str | Sequence[str] = ()
    where: str | None = None
    must_fit: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", column_names(self.by))
        pairs = self.goals.items() if isinstance(self.goals, Mapping) else self.goals
        goals = tuple((str(name), choice("direction", way, ("max", "min"))) for name, way in pairs)
        if len({name for name, _ in goals}) < 2:
            raise InputError(Problem("goals", str(len(goals)), "at least two columns", "TopK takes one."))
        object.__setattr__(self, "goals", goals)

    @property
    def objectives(self) -> tuple[tuple[str, bool], ...]:
        """The columns and whether more is better, for `Picks`."""
        return tuple((name, way == "max") for name, way in self.goals)

    def check(self, schema: pa.Schema) -> None:
        """Raise where a column is not known."""
        number_columns(schema, (name for name, _ in self.goals))
        known_columns(schema, self.by, "group by")
        condition(self.where, schema)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        goals = [list(goal) for goal in self.goals]
        return {"kind": "pareto", "goals": goals, "by": list(self.by), "where": self.where, "must_fit": self.must_fit}

    def start(self, schema: pa.Schema) -> Picks:
        """Return an empty state."""
        return Picks(self, condition(self.where, schema), schema)

    def restored(self, schema: pa.Schema, table: pa.Table) -> Picks:
        """Return the state of a table."""
        return Picks.restored(self, condition(self.where, schema), schema, table)

    def chosen(self, groups: I64 | None, count: int, values: Sequence[F64], positions: I64) -> I64:
        """Return the front, see `PickRule`; the best in the first objective first."""
        if groups is None:
            groups = np.zeros(positions.size, np.int64)
        order = np.lexsort((positions, *(-v for v in reversed(values)), groups))
        ordered = [v[order] for v in values]
        if len(values) == 2:
            return order[_front_of_two(groups[order], ordered[1])]
        return order[_front_of_many(groups[order], ordered)]


def _front_of_two(groups: I64, second: F64) -> I64:
    """Return which rows are on the front, rows ordered by group and then by the first objective, falling.

    A row is on it where its second objective is above all those before it in its group. Ranks in place of values let
    one running maximum serve all groups: a later group starts above the last one.
    """
    rank = np.unique(second, return_inverse=True)[1].astype(np.int64)
    key = groups * (rank.size + 1) + rank
    before = np.concatenate([[-1], np.maximum.accumulate(key)[:-1]])
    return np.flatnonzero(key > np.maximum(before, groups * (rank.size + 1) - 1))


def _front_of_many(groups: I64, values: Sequence[F64]) -> I64:
    """Return the same for more objectives: each row in turn removes what it beats, or equals, behind it."""
    points = np.stack(values, axis=1)
    left = np.arange(groups.size)
    front: list[int] = []
    while left.size:
        best = left[0]  # nothing before it is left, and nothing behind it can beat it
        front.append(int(best))
        beaten = (groups[left] == groups[best]) & (points[left] <= points[best]).all(axis=1)
        left = left[~beaten]
    return np.array(front, np.int64)
