"""`best`: the row with the most, or the least, of something among those that meet all constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfuroof._boundary import Problems
from mfuroof.queries.meanings import quantity
from mfuroof.queries.question import Fitting, Question
from mfuroof.queries.ranking import top_rows
from mfuroof.queries.result import QueryResult, says_nothing
from mfuroof.queries.source import open_source
from mfuroof.queries.stream import Reduced, reduced

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["best", "described", "nothing_found"]

_OUTCOMES = ("bound", "source", "limit", "reason")
_INPUTS = ("input_len", "output_len", "concurrency")


def best(
    source: Any,
    objective: str,
    where: str | Sequence[str] = (),
    *,
    by: str | Sequence[str] = (),
    count: int = 1,
    prices: Mapping[str, float] | None = None,
    even_if_unfit: bool = False,
) -> QueryResult:
    """Return the best rows of a table, a file or dataset, a result, or a sweep.

    Parameters
    ----------
    source
        An Arrow table, the path of a Parquet or CSV file or of a folder of Parquet files, anything with
        ``to_arrow()`` (results of steps and of serving), a `Sweep`, record batches, or columns by name. Read piece by
        piece: memory is bounded whatever its size.
    objective
        ``"max <expression>"`` or ``"min <expression>"`` over the columns, see `mfuroof.expressions`.
    where
        Conditions that all have to hold, such as ``"tpot_s <= 0.03"`` or ``"tpot_ms <= 30"``. Where a value is
        missing, a condition does not hold.
    by
        Columns whose values tell groups apart: the best rows of each group.
    count
        Rows of each group, at least 1.
    prices
        Price of one GPU for an hour, by name: gives the columns ``price_per_million_tokens`` and
        ``price_per_million_output_tokens``. [currency/h]
    even_if_unfit
        Whether rows whose ``fits`` is false can win. They cannot otherwise, unless ``where``, ``by`` or the objective
        names ``fits``; rows for which it is not known can.

    Returns
    -------
    QueryResult
        One row each, groups in order of their values, best first. Of rows that are equally good the first in the
        order of all their columns is taken, so the order of the rows does not matter.

    Raises
    ------
    InputError
        No such expression, or nothing to ask.
    UnknownNameError
        A column that is not there; the nearest are named.
    TableFormatError
        A file is damaged.

    Examples
    --------
    >>> table = {"gpu": ["a", "a", "b"], "tokens_per_s_per_gpu": [10, 30, 20], "step_time_s": [0.01, 0.03, 0.02]}
    >>> best(table, "max tokens_per_s_per_gpu", "step_time_ms <= 25").sentence
    'Of the 2 rows of 3 with step_time_ms <= 25 the highest tokens_per_s_per_gpu is 20 tokens/s: gpu b;
    step_time_s 20 ms.'
    """
    problems = Problems()
    count = problems.positive_int("count", count)
    problems.raise_if_any()
    rows = open_source(source)
    question = Question(rows.schema, (objective,), where, by, prices, must_fit=not even_if_unfit)
    found = reduced(rows, question, top_rows(count))
    name = question.objectives[0].name
    return QueryResult(
        found.table,
        _sentence(found, question),
        "bars",
        "",
        name,
        question.by,
        rows_seen=found.rows,
        rows_allowed=found.allowed,
    )


def _sentence(found: Reduced, question: Question) -> str:
    objective, name = question.objectives[0], question.objectives[0].name
    if not found.table.num_rows:
        return nothing_found(found, question)
    values = found.table.column(name).to_pylist()
    first = max(range(len(values)), key=lambda i: (objective.sign * values[i], -i))
    row = found.table.slice(first, 1).to_pylist()[0]
    head = f"the {objective.superlative} {name} is {quantity(row[name], question.unit(name))}"
    whole = f"Of the {found.allowed:,} rows of {found.rows:,} with {question.conditions} {head}"
    text = whole if question.where else f"Of {found.rows:,} rows {head}"
    more = described(row, found.table, question, leave_out=(name,))
    groups = len({tuple(r[b] for b in question.by) for r in found.table.select(list(question.by)).to_pylist()})
    among = f", the best of {groups} groups by {', '.join(question.by)}" if question.by and groups > 1 else ""
    return f"{text}{among}: {more}." if more else f"{text}{among}."


def described(row: Mapping[str, Any], table: pa.Table, question: Question, leave_out: Sequence[str]) -> str:
    """Return what a row is (its labels and counts), and the values of the columns that constraints name."""
    import pyarrow as pa

    named = {name for e in question.where for name in e.names} - set(leave_out)
    asked = [n for n in table.column_names if n in named]
    what, values = [], []
    for field in table.schema:
        name, value = field.name, row[field.name]
        given = pa.types.is_string(field.type) or pa.types.is_integer(field.type) or name in _INPUTS
        if name in leave_out or _left_out(name, value, row):
            continue
        if given:
            what.append(f"{name} {quantity(value)}")
        elif name in asked and not isinstance(value, bool):
            values.append(f"{name} {quantity(value, question.unit(name))}")
    return "; ".join(part for part in (", ".join(what), ", ".join(values)) if part)


def _left_out(name: str, value: Any, row: Mapping[str, Any]) -> bool:
    """Return whether a column is better left out of a sentence: outcomes, defaults, and prompts that are not there."""
    if name in _OUTCOMES or says_nothing(name, value):
        return True
    return name.startswith("prefill_") and 0 in (row.get("prefill_batch"), row.get("prefill_new_tokens"))


def nothing_found(found: Reduced, question: Question) -> str:
    """Return why no row is left."""
    asked = zip(question.where, found.alone, strict=True)
    met = [(e, n) for e, n in asked if n < found.rows or not isinstance(e, Fitting)]
    if not met:
        return f"None of {found.rows:,} rows has a finite value of {question.objectives[0].name}."
    each = ", ".join(f"{e.text} (met by {n:,})" for e, n in met)
    lack = f"; the {found.allowed:,} that meet all have no finite value to compare" if found.allowed else ""
    return f"None of {found.rows:,} rows can be chosen with {each}{lack}."
