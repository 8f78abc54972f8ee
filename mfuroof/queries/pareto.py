"""`pareto_front`: the rows that no other row beats in everything, such as throughput per GPU against TPOT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mfuroof.errors import InputError, Problem
from mfuroof.queries.best import nothing_found
from mfuroof.queries.meanings import quantity
from mfuroof.queries.question import Question, texts
from mfuroof.queries.ranking import front_rows
from mfuroof.queries.result import QueryResult
from mfuroof.queries.source import open_source
from mfuroof.queries.stream import Reduced, reduced

__all__ = ["THROUGHPUT_AND_SPEED", "pareto_front"]

THROUGHPUT_AND_SPEED = ("max output_tokens_per_s_per_gpu", "min tpot_s")
"""What a serving result is mostly asked: tokens per second and GPU against time per token of one user."""


def pareto_front(
    source: Any,
    objectives: Sequence[str] = THROUGHPUT_AND_SPEED,
    where: str | Sequence[str] = (),
    *,
    by: str | Sequence[str] = (),
    prices: Mapping[str, float] | None = None,
    even_if_unfit: bool = False,
) -> QueryResult:
    """Return the Pareto front of two or more objectives.

    Parameters
    ----------
    source, where, prices, even_if_unfit
        As in `mfuroof.queries.best`.
    objectives
        Two or more of ``"max <expression>"`` and ``"min <expression>"``.
    by
        Columns whose values tell groups apart: one front for each group.

    Returns
    -------
    QueryResult
        The rows that no other row of their group dominates: is at least as good in every objective and better in
        one. Exact; equal rows are all kept. Sorted by group, then by the objectives in order, best first.

    Raises
    ------
    InputError, UnknownNameError, TableFormatError
        As in `mfuroof.queries.best`; fewer than two objectives.

    Notes
    -----
    Two objectives take n log n (Kung, Luccio and Preparata, J. ACM 22, 1975, section 3: sort by one, keep the running
    best of the other); more take n times the size of the front.

    Examples
    --------
    >>> table = {"rate": [10, 30, 20, 25], "time_s": [1.0, 4.0, 2.0, 4.0]}
    >>> pareto_front(table, ("max rate", "min time_s")).table.column("rate").to_pylist()
    [30, 20, 10]
    """
    asked = texts("objectives", objectives)
    if len(asked) < 2:
        raise InputError(Problem("objectives", repr(objectives), "two or more", "best() takes one."))
    rows = open_source(source)
    question = Question(rows.schema, asked, where, by, prices, must_fit=not even_if_unfit)
    found = reduced(rows, question, front_rows)
    y, x = (objective.name for objective in question.objectives[:2])
    return QueryResult(
        found.table,
        _sentence(found, question),
        "front",
        x,
        y,
        question.by,
        rows_seen=found.rows,
        rows_allowed=found.allowed,
    )


def _sentence(found: Reduced, question: Question) -> str:
    if not found.table.num_rows:
        return nothing_found(found, question)
    spans = []
    for objective in question.objectives:
        values = found.table.column(objective.name).to_pylist()
        low, high = (quantity(pick(values), question.unit(objective.name)) for pick in (min, max))
        spans.append(f"{objective.name} from {low} to {high}" if low != high else f"{objective.name} {low}")
    groups = f", each compared within its {', '.join(question.by)}" if question.by else ""
    allowed = f"the {found.allowed:,} rows of {found.rows:,} with {question.conditions}"
    among = allowed if question.where else f"{found.rows:,} rows"
    verb = "is" if found.table.num_rows == 1 else "are"
    return f"Of {among} {found.table.num_rows:,} {verb} not dominated{groups}: {', '.join(spans)}."
