"""`largest_concurrency`: how many clients a deployment serves within limits of TTFT and TPOT."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import MAX_COUNT, Problems, spread
from mfuroof._types import I64
from mfuroof.errors import InputError, MfuroofWarning, Problem
from mfuroof.queries.meanings import beyond, quantity
from mfuroof.queries.result import QueryResult
from mfuroof.queries.search import scan_all
from mfuroof.queries.shapes import check_evaluator, labels_of, title_of
from mfuroof.queries.tables import answer_table, span_of
from mfuroof.serving import ServingResult, estimate, scheduler_of
from mfuroof.step import StepEvaluator

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MOST_ESTIMATED", "largest_concurrency"]

MOST_ESTIMATED = 2**24
"""Estimates made at most: about a minute. [estimates]"""

_FIGURES = ("ttft_s", "tpot_s", "e2e_latency_s", "output_tokens_per_s_per_gpu")


def largest_concurrency(
    evaluator: StepEvaluator,
    input_len: ArrayLike,
    output_len: ArrayLike,
    *,
    tpot_limit_s: ArrayLike | None = None,
    ttft_limit_s: ArrayLike | None = None,
    most: int | None = None,
    **serving: Any,
) -> QueryResult:
    """Return the largest number of clients for which a closed loop keeps its limits.

    TTFT and TPOT mostly rise with the load, but not always (a burst of short prompts may share its steps better with
    one more of them), so every concurrency up to ``most`` is estimated.

    Parameters
    ----------
    evaluator
        Model, GPUs and engine.
    input_len, output_len
        Prompt and generated tokens of a request. [tokens]
    tpot_limit_s, ttft_limit_s
        Time per output token, and to the first one, that clients accept; at least one of them. They broadcast with
        the lengths. [s]
    most
        Largest concurrency looked at; by default what the engine's scheduler keeps in flight. [requests]
    **serving
        Further arguments of `mfuroof.serving.estimate`, such as ``scheduler`` or ``memory_utilization``; no arrays.

    Returns
    -------
    QueryResult
        One row for each case: lengths and limits, ``concurrency`` (null where not even one client is served within
        them), TTFT, TPOT, end-to-end latency and throughput there, ``limited_by`` (``tpot``, ``ttft`` or ``range``)
        and ``gapless``: whether every smaller concurrency keeps the limits too.

    Raises
    ------
    InputError
        No limit, arguments out of range or of shapes that do not broadcast, or more than 2**24 estimates.

    Warns
    -----
    MfuroofWarning
        The model does not fit the memory.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> found = largest_concurrency(evaluator, 1024, 256, tpot_limit_s=0.02, most=256)
    >>> found.table.column("limited_by").to_pylist()
    ['tpot']
    """
    check_evaluator("evaluator", evaluator)
    problems = Problems()
    limits = {"tpot_limit_s": tpot_limit_s, "ttft_limit_s": ttft_limit_s}
    if tpot_limit_s is None and ttft_limit_s is None:
        problems.add("tpot_limit_s, ttft_limit_s", "neither", "at least one of them")
    lengths = {
        "input_len": problems.numbers("input_len", input_len, 0.0, open_low=True),
        "output_len": problems.numbers("output_len", output_len, 0.0, open_low=True),
    }
    given = {name: problems.numbers(name, v, 0.0, open_low=True) for name, v in limits.items() if v is not None}
    for name in serving:
        if name in ("concurrency", "arrival_rate"):
            problems.add(name, "an argument", "none: it is what is looked for, in a closed loop")
    engines = evaluator.parallel.dp_size * evaluator.parallel.pp_size
    usual = scheduler_of(evaluator.engine).max_num_seqs * engines
    biggest = problems.positive_int("most", usual if most is None else most)
    problems.raise_if_any()
    columns, _ = spread(lengths | given)
    cases = int(columns["input_len"].size)
    if biggest > MAX_COUNT or cases * biggest > MOST_ESTIMATED:
        found = f"{cases * biggest:,} estimates"
        raise InputError(Problem("most", found, f"at most {MOST_ESTIMATED:,}", "Lower it, or ask about fewer cases."))

    def estimated(rows: I64, values: I64) -> ServingResult:
        return estimate(evaluator, columns["input_len"][rows], columns["output_len"][rows], values, **serving)

    def within(rows: I64, values: I64) -> np.ndarray:
        result = estimated(rows, values)
        good = np.ones(rows.size, bool)
        for name in given:
            good &= getattr(result, f"{name.removesuffix('_limit_s')}_s") <= columns[name][rows]
        return good

    everything = np.arange(cases)
    estimated(everything, np.ones(cases, np.int64))  # what is to be warned of is warned of once
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        scan = scan_all(within, cases, 1, biggest)
        at = estimated(everything, np.maximum(scan.last, 1))
        after = estimated(everything, scan.last + 1)
    table = _table(evaluator, columns, given, scan.last, scan.met == scan.last, at, after, biggest)
    across = next((name for name, c in columns.items() if (c != c[:1]).any()), next(iter(given)))
    text = _sentence(evaluator, table, across, tuple(given))
    return QueryResult(
        table, text, "line", across, "concurrency", rows_seen=cases, rows_allowed=int((scan.last > 0).sum())
    )


def _table(
    evaluator: StepEvaluator,
    columns: dict[str, Any],
    given: dict[str, Any],
    answer: I64,
    gapless: np.ndarray,
    at: ServingResult,
    after: ServingResult,
    most: int,
) -> pa.Table:
    none = answer < 1
    by = np.full(answer.size, "ttft", dtype="<U6")
    if "tpot_limit_s" in given:
        by[~(after.tpot_s <= columns["tpot_limit_s"])] = "tpot"
    by[~after.fits] = "memory"
    by[answer >= most] = "range"
    out: dict[str, Any] = {**columns, "concurrency": np.ma.masked_array(answer, none)}
    out |= {name: np.ma.masked_array(getattr(at, name), none) for name in _FIGURES}
    out |= {f"next_{name}": np.ma.masked_invalid(getattr(after, name)) for name in ("ttft_s", "tpot_s")}
    return answer_table(labels_of(evaluator), {**out, "limited_by": by, "gapless": gapless})


def _sentence(evaluator: StepEvaluator, table: pa.Table, across: str, limits: tuple[str, ...]) -> str:
    rows = table.to_pylist()
    known = [row for row in rows if row["concurrency"] is not None]
    names = {"tpot_limit_s": "TPOT", "ttft_limit_s": "TTFT"}
    first = rows[0] if rows else {}
    within = " and ".join(
        f"a {names[n]} of {quantity(first[n], 's')}" if all(r[n] == first[n] for r in rows) else f"its {names[n]} limit"
        for n in limits
    )
    head = f"{title_of(evaluator)} serves"
    if not known:
        why = ": a request does not fit the memory" if all(r["limited_by"] == "memory" for r in rows) else ""
        return f"{head} not even one client within {within}{why}."
    if len(rows) > 1:
        some = f"; {len(rows) - len(known):,} of {len(rows):,} cases have none" if len(known) < len(rows) else ""
        span = span_of(known, "concurrency", across)
        return f"The largest concurrency of {title_of(evaluator)} within {within} {span}{some}."
    row = known[0]
    shape = f"{quantity(row['input_len'])} prompt and {quantity(row['output_len'])} output tokens"
    end = {
        "tpot": f"one more has a TPOT of {_over(row, 'tpot')}",
        "ttft": f"one more has a TTFT of {_over(row, 'ttft')}",
        "memory": "one more does not fit the memory",
        "range": "the largest looked at",
    }[row["limited_by"]]
    rate = quantity(row["output_tokens_per_s_per_gpu"], "tokens/s")
    return f"{head} {row['concurrency']:,} clients of {shape} within {within} ({end}), {rate} per GPU."


def _over(row: dict[str, Any], figure: str) -> str:
    value, limit = row[f"next_{figure}_s"], row.get(f"{figure}_limit_s")
    return quantity(value, "s") if value is None or limit is None else beyond(value, limit, "s")
