"""What a sweep can be reduced to without ever being held: the protocol of reductions.

A `Reduction` is a definition: frozen, picklable, with a `to_dict` that tells two of them apart. `start` gives an empty
`State`; any number of states, filled by threads, shards or other machines, are merged in any order. The result must
not depend on how rows were dealt out: ties are broken by the position of a row in the sweep, never by who came first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.expressions import Expression
from mfuroof.sweep.block import Block, Column, sample, tested

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Reduction", "State", "column_names", "condition", "known_columns", "number_columns", "only_rows"]


class State(Protocol):
    """What a reduction has seen so far."""

    def update(self, block: Block) -> None:
        """Take in rows; each row of a sweep is given once to one state."""

    def merge(self, other: State) -> None:
        """Take in what another state of the same reduction has seen; ``other`` is not changed."""

    def table(self) -> pa.Table:
        """Return the state as a table, from which `Reduction.restored` makes an equal one."""
        ...

    def result(self) -> pa.Table:
        """Return the answer; rows in an order that depends on their values and positions alone."""
        ...


class Reduction(Protocol):
    """A definition of what is wanted."""

    def check(self, schema: pa.Schema) -> None:
        """Raise `UnknownNameError` or `InputError` where the columns of a sweep do not have what is asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types that say what is wanted, and the kind of reduction as ``kind``."""
        ...

    def start(self, schema: pa.Schema) -> State:
        """Return a state that has seen nothing, of a sweep with the columns of ``schema``."""
        ...

    def restored(self, schema: pa.Schema, table: pa.Table) -> State:
        """Return the state that `State.table` wrote."""
        ...


def known_columns(schema: pa.Schema, names: Iterable[str], kind: str) -> None:
    """Raise `UnknownNameError` for a name that is no column."""
    for name in names:
        if name not in schema.names:
            raise UnknownNameError(f"column to {kind}", name, schema.names)


def number_columns(schema: pa.Schema, names: Iterable[str]) -> None:
    """Raise where a name is no column of numbers."""
    import pyarrow as pa

    listed = tuple(names)
    known_columns(schema, listed, "compare")
    for name in listed:
        if pa.types.is_dictionary(schema.field(name).type):
            raise InputError(Problem("column", f"{name}, a column of text", "a column of numbers"))


def column_names(by: str | Iterable[str]) -> tuple[str, ...]:
    """Return the names of columns that were given as one name or several."""
    return (by,) if isinstance(by, str) else tuple(by)


def condition(text: str | None, schema: pa.Schema) -> Expression | None:
    """Return a condition that was given as a text, on the columns of a sweep; None for none."""
    import pyarrow as pa

    if text is None:
        return None
    expression = Expression.parse(text, schema.names, "where")
    trial = sample({field.name: pa.types.is_dictionary(field.type) for field in schema})
    trial |= {f.name: Column(np.ones(1, np.bool_)) for f in schema if pa.types.is_boolean(f.type)}
    tested(expression, trial)  # what is no condition is refused before anything is priced
    return expression


def only_rows(block: Block, meets: Expression | None) -> Block:
    """Return the rows of a block that meet a condition."""
    return block if meets is None else block.select(block.test(meets))
