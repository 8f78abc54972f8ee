"""What is asked of rows: objectives, constraints and groups, parsed against the columns there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof._types import F64
from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.expressions import Column, Expression
from mfuroof.queries.columns import column_of
from mfuroof.queries.derived import CURRENCY, Derived, checked_prices, derived_columns
from mfuroof.queries.meanings import field_unit

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Fitting", "Objective", "Question", "texts"]

FITS = "fits"
"""Column that says whether a row's weights and requests fit the memory."""

_SENSES = {"max": 1.0, "maximize": 1.0, "min": -1.0, "minimize": -1.0}


@dataclass(frozen=True)
class Objective:
    """What is to be largest (sign 1) or smallest (sign -1)."""

    expression: Expression
    sign: float

    @classmethod
    def parse(cls, text: str, known: Sequence[str]) -> Objective:
        """Parse ``max <expression>`` or ``min <expression>``."""
        sense, _, rest = text.strip().partition(" ") if isinstance(text, str) else ("", "", "")
        if sense.lower() not in _SENSES or not rest.strip():
            expected = "'max' or 'min' and an expression, such as 'max tokens_per_s_per_gpu'"
            raise InputError(Problem("objective", repr(text), expected))
        return cls(Expression.parse(rest, known, "objective"), _SENSES[sense.lower()])

    @property
    def name(self) -> str:
        """The column, or the text of the expression."""
        return self.expression.text

    @property
    def superlative(self) -> str:
        """What its best value is called."""
        return "highest" if self.sign > 0 else "lowest"


@dataclass(frozen=True)
class Fitting:
    """The condition that nothing is known to stand against a row's memory: ``fits`` is true, or missing."""

    text: str = FITS
    names: tuple[str, ...] = (FITS,)

    @staticmethod
    def known(schema: pa.Schema) -> bool:
        """Return whether there is such a column."""
        import pyarrow as pa

        return FITS in schema.names and bool(pa.types.is_boolean(schema.field(FITS).type))

    def test(self, columns: Mapping[str, Column]) -> np.ndarray:
        """Return whether each row meets it (n,)."""
        values, there = columns[FITS]
        return np.asarray(values, np.bool_) | ~np.asarray(there, np.bool_)


class Question:
    """Objectives, constraints and groups over the columns of one schema.

    Parameters
    ----------
    schema
        Columns that are there.
    objectives
        ``max ...`` or ``min ...``, one or more.
    where
        Conditions that all have to hold.
    by
        Columns whose values tell groups apart.
    prices
        Price of one GPU for an hour, by name. [currency/h]
    must_fit
        Whether rows that do not fit the memory are left out, unless something above is about that.

    Raises
    ------
    InputError, UnknownNameError
        An expression that is none, a column that is not known.
    """

    def __init__(
        self,
        schema: pa.Schema,
        objectives: Sequence[str],
        where: str | Sequence[str] = (),
        by: str | Sequence[str] = (),
        prices: Mapping[str, Any] | None = None,
        must_fit: bool = False,
    ) -> None:
        self.schema = schema
        self.derived = derived_columns(schema.names, checked_prices(prices))
        known = [*schema.names, *self.derived]
        self.objectives = [Objective.parse(text, known) for text in objectives]
        self.where: list[Expression | Fitting] = []
        self.where += [Expression.parse(text, known, "constraint") for text in texts("where", where)]
        self.by = texts("by", by)
        for name in self.by:
            if name not in schema.names:
                raise UnknownNameError("column", name, schema.names)
        named = {*self.by, *(name for e in (*(o.expression for o in self.objectives), *self.where) for name in e.names)}
        if must_fit and FITS not in named and Fitting.known(schema):
            self.where.append(Fitting())
        read = [name for e in (*(o.expression for o in self.objectives), *self.where) for name in e.names]
        self.used_derived = [name for name in dict.fromkeys(read) if name in self.derived]
        needed = [name for name in read if name not in self.derived]
        needed += [name for d in self.used_derived for name in self.derived[d].needs]
        self.needed = list(dict.fromkeys([*needed, *self.by])) or schema.names[:1]

    def columns(self, table: pa.Table) -> dict[str, Column]:
        """Return the columns that the expressions read, of a table that has `needed`."""
        plain = {name: column_of(table, name) for name in self.needed}
        for name in self.used_derived:
            plain[name] = _computed(self.derived[name], plain)
        return plain

    def allowed(self, columns: Mapping[str, Column], rows: int) -> tuple[np.ndarray, list[int]]:
        """Return which rows meet all constraints, and how many meet each alone."""
        good, alone = np.ones(rows, bool), []
        for condition in self.where:
            holds = np.broadcast_to(condition.test(columns), rows)
            alone.append(int(np.count_nonzero(holds)))
            good &= holds
        return good, alone

    def values(self, columns: Mapping[str, Column], rows: int) -> F64:
        """Return the objectives as larger-is-better numbers (k, rows); NaN where one is missing."""
        found = np.empty((len(self.objectives), rows))
        for i, objective in enumerate(self.objectives):
            found[i] = objective.sign * objective.expression.evaluate(columns)
        return found

    def completed(self, table: pa.Table) -> pa.Table:
        """Return rows with the derived columns that were asked for, and objectives that are no column, appended."""
        import pyarrow as pa

        columns = self.columns(table)
        for name in self.used_derived:
            unit = {"unit": self.derived[name].unit, "meaning": self.derived[name].meaning}
            field = pa.field(name, pa.float64(), metadata=unit)
            table = table.append_column(field, pa.array(np.asarray(columns[name], np.float64)))
        for objective in self.objectives:
            if objective.name not in table.column_names:
                values = np.broadcast_to(objective.expression.evaluate(columns), table.num_rows)
                table = table.append_column(objective.name, pa.array(values))
        return table

    def unit(self, name: str) -> str:
        """Return the unit of a column, empty where it is not known."""
        if name in self.derived:
            unit = self.derived[name].unit
            return "" if unit == CURRENCY else unit
        return field_unit(self.schema.field(name)) if name in self.schema.names else ""

    @property
    def conditions(self) -> str:
        """The constraints as one text, ``a and b``."""
        return " and ".join(e.text for e in self.where)


def texts(where: str, value: Any) -> tuple[str, ...]:
    """Return one text or several as a tuple; raise `InputError` for anything else."""
    several = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else None
    if several is None or not all(isinstance(v, str) for v in several):
        raise InputError(Problem(where, repr(value)[:100], "a text or a list of texts"))
    return several


def _computed(derived: Derived, columns: Mapping[str, Column]) -> F64:
    return derived.compute(*(columns[name] for name in derived.needs))
