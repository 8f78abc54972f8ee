"""`largest`: the largest batch, context or chunk whose step stays under a time limit, for arrays of cases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems, choice
from mfuroof._types import I64
from mfuroof.errors import InputError, Problem
from mfuroof.queries.guarantee import why_not_monotone
from mfuroof.queries.meanings import beyond, quantity, unit_by_name
from mfuroof.queries.result import QueryResult
from mfuroof.queries.search import bisect_last, descend, scan_all
from mfuroof.queries.shapes import Cases, check_evaluator, check_range, labels_of, title_of
from mfuroof.queries.tables import answer_table, span_of
from mfuroof.step import StepEvaluator
from mfuroof.sweep.memory import Memory

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MOST_SCANNED", "largest"]

MOST_SCANNED = 2**28
"""Steps priced at most where every number has to be looked at: half a minute. [steps]"""

_ROUNDING = 2e-12
"""Times that should rise may fall by rounding, up to 1e-12 (the tolerance of the package's laws), on either side."""


def largest(
    evaluator: StepEvaluator,
    axis: str,
    limit_s: ArrayLike,
    *,
    decode_batch: ArrayLike | None = None,
    decode_context: ArrayLike | None = None,
    prefill_batch: ArrayLike | None = None,
    prefill_new_tokens: ArrayLike | None = None,
    prefill_context: ArrayLike | None = None,
    low: int = 1,
    most: int | None = None,
    memory_utilization: float | None = None,
    method: Literal["auto", "bisect", "scan"] = "auto",
) -> QueryResult:
    """Return the largest value of one axis of a step's shape whose step takes at most a limit.

    Parameters
    ----------
    evaluator
        Model, GPUs and conventions.
    axis
        What is looked for: ``"decode_batch"``, ``"decode_context"``, ``"prefill_batch"``, ``"prefill_new_tokens"`` (a
        chunk of a prompt) or ``"prefill_context"``.
    limit_s
        Time a step may take; broadcasts with the shape. [s]
    decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context
        The rest of the shape, numbers or arrays that broadcast; 0 where left out, but one request for an axis of
        lengths. [requests, tokens]
    low, most
        The range that is looked at; by default up to 4096 requests or 2**20 tokens.
    memory_utilization
        Share of the memory the engine may use: the requests must fit beside the weights as well. None asks for the
        time alone. [fraction]
    method
        ``"bisect"`` needs step times that are known never to fall along the axis; ``"scan"`` prices every value;
        ``"auto"`` bisects where it may and scans elsewhere.

    Returns
    -------
    QueryResult
        One row for each case, in C order of the broadcast shape: the fixed axes, ``limit_s``, the answer in a column
        of the axis' name (null where not even ``low`` will do), its ``step_time_s`` and that of the next value,
        ``tokens_per_s_per_gpu``, and ``limited_by``: ``time``, ``memory``, or ``range`` where ``most`` is the answer.
        ``gapless`` says whether every smaller value of the range meets the limits too.

    Raises
    ------
    InputError
        Arguments out of range or of shapes that do not broadcast; bisection asked for where step times may fall; more
        than 2**28 steps to scan.
    UnknownNameError
        No such axis or method.

    Notes
    -----
    All cases bisect together, about log2(most) calls of the evaluator. The answer is the one a look at every value
    gives, also where times that are equal on paper differ by rounding: bisection runs against the limit plus 2e-12 of
    it, and from what it finds the search goes down to the last value within the limit itself.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> found = largest(evaluator, "decode_batch", 0.015, decode_context=[1024, 8192])
    >>> batches = found.table.column("decode_batch").to_pylist()
    >>> batches[0] > batches[1] > 0
    True
    """
    check_evaluator("evaluator", evaluator)
    problems = Problems()
    limit = problems.numbers("limit_s", limit_s, 0.0, open_low=True)
    shape = {
        "decode_batch": decode_batch,
        "decode_context": decode_context,
        "prefill_batch": prefill_batch,
        "prefill_new_tokens": prefill_new_tokens,
        "prefill_context": prefill_context,
    }
    choice("method", method, ("auto", "bisect", "scan"))
    problems.raise_if_any()
    cases = Cases(axis, shape, {"limit_s": limit})
    smallest, biggest = check_range(axis, low, most, problems)
    if memory_utilization is not None:
        problems.number("memory_utilization", memory_utilization, 0, 1, open_low=True)
    problems.raise_if_any()
    room = None if memory_utilization is None else Memory.of(evaluator, memory_utilization)
    search = _Search(evaluator, cases, room)
    reason = why_not_monotone(evaluator, axis)
    if method == "bisect" and reason:
        remedy = "Use method='scan', which prices every value."
        raise InputError(Problem("method", f"'bisect', but {reason}", f"times that never fall along {axis}", remedy))
    if method == "scan" or (method == "auto" and reason):
        _check_size(cases.size * (biggest - smallest + 1), reason)
        scanned = scan_all(search.exact, cases.size, smallest, biggest)
        answer, gapless = scanned.last, scanned.met == scanned.last - smallest + 1
    else:
        near = bisect_last(search.nearly, cases.size, smallest, biggest)
        answer = descend(search.exact, near, smallest)
        gapless = np.ones(cases.size, bool)
    table = search.table(answer, gapless, smallest, biggest)
    return QueryResult(
        table,
        _sentence(evaluator, cases, table, reason),
        "line",
        cases.varying,
        axis,
        rows_seen=cases.size,
        rows_allowed=int((answer >= smallest).sum()),
    )


class _Search:
    """The conditions of one question."""

    def __init__(self, evaluator: StepEvaluator, cases: Cases, room: Memory | None) -> None:
        self.evaluator, self.cases, self.room = evaluator, cases, room

    def exact(self, rows: I64, values: I64) -> np.ndarray:
        """Return whether steps meet the limits."""
        return self._within(rows, values, 1.0)

    def nearly(self, rows: I64, values: I64) -> np.ndarray:
        """Return the same, with rounding in their favour."""
        return self._within(rows, values, 1.0 + _ROUNDING)

    def _within(self, rows: I64, values: I64, slack: float) -> np.ndarray:
        times = self.cases.times(self.evaluator, rows, values)
        return (times <= self.cases.numbers["limit_s"][rows] * slack) & self.fits(rows, values)

    def fits(self, rows: I64, values: I64) -> np.ndarray:
        """Return whether the requests fit the memory; True where that was not asked for."""
        fits = None if self.room is None else self.room.fits(self.cases.columns(rows, values))
        return np.broadcast_to(True if fits is None else fits, rows.shape)

    def table(self, answer: I64, gapless: np.ndarray, low: int, most: int) -> pa.Table:
        """Return the answers as a table."""
        cases, rows = self.cases, np.arange(self.cases.size)
        found = answer >= low
        time = cases.times(self.evaluator, rows, np.maximum(answer, low))
        after = cases.times(self.evaluator, rows, np.maximum(answer + 1, low))
        shape = cases.columns(rows, np.maximum(answer, low))
        tokens = shape["decode_batch"] + np.where(shape["prefill_new_tokens"] > 0, shape["prefill_batch"], 0)
        over = ~(after <= cases.numbers["limit_s"])  # also where the time is not known
        by = np.where(answer >= most, "range", np.where(over, "time", "memory"))
        rate = np.divide(tokens, time * self.evaluator.parallel.num_gpus, out=np.zeros(rows.size), where=time > 0)
        columns: dict[str, Any] = {**cases.told, "limit_s": cases.numbers["limit_s"]}
        columns |= {cases.axis: np.ma.masked_array(answer, ~found), "step_time_s": np.ma.masked_array(time, ~found)}
        columns |= {"next_step_time_s": after, "tokens_per_s_per_gpu": np.ma.masked_array(rate, ~found)}
        columns |= {"limited_by": by, "gapless": gapless}
        return answer_table(labels_of(self.evaluator), columns)


def _check_size(steps: int, reason: str) -> None:
    if steps > MOST_SCANNED:
        why = f" because {reason}" if reason else ""
        raise InputError(
            Problem(
                "most",
                f"{steps:,} steps to price{why}",
                f"at most {MOST_SCANNED:,}",
                "Lower most, or ask about fewer cases at a time.",
            )
        )


def _sentence(evaluator: StepEvaluator, cases: Cases, table: pa.Table, reason: str) -> str:
    axis, unit = cases.axis, unit_by_name(cases.axis)
    rows = table.to_pylist()
    checked = f" (every value was priced: {reason})" if reason else ""
    head, known = f"For {title_of(evaluator)}", [row for row in rows if row[axis] is not None]
    if len(rows) == 1:
        return f"{head} {_one(rows[0], axis, unit, cases)}{checked}."
    limits = {row["limit_s"] for row in rows}
    limit = quantity(limits.pop(), "s") if len(limits) == 1 else "its limit"
    if not known:
        return f"{head} none of {len(rows):,} cases has a {axis} within {limit}{checked}."
    some = f" of {len(rows):,} cases; {len(rows) - len(known):,} have none" if len(known) < len(rows) else ""
    return f"{head} the largest {axis} of a step within {limit} {span_of(known, axis, cases.varying)}{some}{checked}."


def _one(row: dict[str, Any], axis: str, unit: str, cases: Cases) -> str:
    fixed = ", ".join(f"{name} {row[name]:,}" for name in cases.told)
    at = f" at {fixed}" if fixed else ""
    limit = quantity(row["limit_s"], "s")
    if row[axis] is None:
        smallest = "memory has no room for it" if row["limited_by"] == "memory" else "the smallest takes longer"
        return f"there is no {axis} within {limit}{at}: {smallest}"
    reasons = {
        "time": f"the next takes {beyond(row['next_step_time_s'], row['limit_s'], 's')}",
        "memory": "no more fit the memory",
        "range": "the largest looked at",
    }
    why = reasons[row["limited_by"]]
    return f"the largest {axis} of a step within {limit}{at} is {quantity(row[axis], unit)} ({why})"
