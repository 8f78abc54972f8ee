"""Step times for tables of configurations."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._boundary import Problems
from mfuroof._types import I64
from mfuroof.batch import StepBatch
from mfuroof.breakdown import StepResult
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import InputError, MfuroofError, MfuroofWarning, Problem
from mfuroof.params import CostParams
from mfuroof.precision.presets import runtime_of
from mfuroof.precision.runtime import ALLOWED, RuntimePrecision
from mfuroof.predict.rows import Rows, as_count, is_blank, scatter
from mfuroof.step import StepEvaluator

__all__ = ["PRECISION", "STEP_COLUMNS", "bind", "keys", "predict_steps"]

UNIFORM = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
LISTS = ("decode_contexts", "prefill_contexts", "prefill_tokens")
PRECISION = ("runtime", *ALLOWED)
"""Columns that say what the engine is launched with: a preset, and fields that override it."""
STEP_COLUMNS = (
    "model", "gpu", "engine", "tp", "pp", "ep", "dp", "weight_dtype", "kv_dtype", *PRECISION, *UNIFORM, *LISTS,
)  # fmt: skip
"""Columns that are read; only model, gpu and a shape are required."""


def predict_steps(
    table: pa.Table, *, cost: str = "kernels", params: CostParams | None = None, threads: int = 1
) -> pa.Table:
    """Add step times to a table of configurations.

    Parameters
    ----------
    table
        Columns ``model, gpu`` and a shape: either ``decode_batch, decode_context, prefill_batch,
        prefill_new_tokens, prefill_context`` (any of them; counts, blank is 0, but ``prefill_batch`` is 1 where there
        are new tokens) or the list columns ``decode_contexts, prefill_contexts, prefill_tokens`` (lists, or their JSON
        text; blank is ``[]``). A row whose shape is blank all over is an error, not an empty step. Optional:
        ``engine`` (vllm), ``tp, pp, ep, dp`` (1), ``weight_dtype, kv_dtype`` (blank: the checkpoint's own), and what
        the engine is launched with: ``runtime`` (a preset of `mfuroof.quant`), ``gemm_dtype, kvcache_dtype,
        attention_dtype, moe_dtype`` (they override it).
    cost, params
        Cost family and conventions, for every row.
    threads
        Threads for evaluating.

    Returns
    -------
    pyarrow.Table
        The input and ``step_time_s``, one ``<component>_s`` a component, ``bound``, ``source``, ``note`` (what was
        assumed, and what of the precision does not apply), and ``error``: a row that cannot be answered has nulls and
        a text there. [s]

    Raises
    ------
    InputError
        A required column is missing or there twice, or both spellings of a shape are there.
    """
    problems = Problems()
    problems.positive_int("threads", threads)
    problems.raise_if_any()
    rows = Rows(table)
    rows.require("model", "gpu")
    uniform, lists = [c for c in UNIFORM if rows.has(c)], [c for c in LISTS if rows.has(c)]
    if bool(uniform) == bool(lists):
        found = ", ".join(uniform + lists) or "neither"
        raise InputError(Problem("shape columns", found, f"some of {', '.join(UNIFORM)}, or of {', '.join(LISTS)}"))
    shapes: dict[str, Any]
    if lists:
        shapes = {name: _list_column(rows, name) for name in LISTS}
        _check_pairs(rows, shapes)
    else:
        shapes = {name: rows.counts(name) for name in UNIFORM}
        one = rows.blanks("prefill_batch") & (shapes["prefill_new_tokens"] > 0)
        shapes["prefill_batch"] = np.where(one, 1, shapes["prefill_batch"])
    _check_blank(rows, lists or ["decode_batch", "prefill_batch", "prefill_new_tokens"])
    results: list[tuple[I64, StepResult]] = []
    for key, members in rows.groups(keys(rows)):
        try:
            evaluator, note = bind(key, cost, params)
            for i in members:
                rows.note(int(i), note)
            columns = {name: values[members] for name, values in shapes.items()} if uniform else {}
            batch = StepBatch.uniform(**columns) if uniform else _ragged(shapes, members)
            results.append((members, evaluator.evaluate(batch, threads=threads)))
        except MfuroofError as error:
            for i in members:
                rows.fail(int(i), str(error).replace("\n", "; "))
    return rows.answered(_columns(len(rows), results))


def keys(rows: Rows, dp_column: str = "dp") -> dict[str, Any]:
    """Return the columns that decide which evaluator a row needs."""
    model, gpu = rows.texts("model"), rows.texts("gpu")
    for i, (m, g) in enumerate(zip(model, gpu, strict=True)):
        if m is None or g is None:
            rows.fail(i, f"{'model' if m is None else 'gpu'}: found a blank, expected a name")
    degrees = {name: rows.counts(name, default=1, minimum=1) for name in ("tp", "pp", "ep", dp_column)}
    dtypes = {name: rows.texts(name) for name in ("weight_dtype", "kv_dtype")}
    runtime = _runtimes(rows, dtypes["kv_dtype"])
    return {"model": model, "gpu": gpu, "engine": rows.texts("engine", "vllm"), **degrees, **dtypes, "runtime": runtime}


def bind(key: tuple[Any, ...], cost: str, params: CostParams | None) -> tuple[StepEvaluator, str]:
    """Return the evaluator of one row's `keys`, and what was odd about it."""
    model, gpu, engine, tp, pp, ep, dp, weight_dtype, kv_dtype, runtime = key
    with warnings.catch_warnings(record=True) as caught:  # one row's oddity must not stop or spam a table of thousands
        warnings.simplefilter("always", MfuroofWarning)
        evaluator = StepEvaluator(
            model,
            gpu,
            tp,
            pp,
            ep,
            dp,
            cost,  # type: ignore[arg-type]
            engine,
            params=params,
            weight_dtype=weight_dtype,
            kv_dtype=kv_dtype,
            runtime=runtime,
        )
    return evaluator, "; ".join(dict.fromkeys(str(w.message).replace("\n", "; ") for w in caught))


def _runtimes(rows: Rows, kv_dtype: list[str | None]) -> list[RuntimePrecision | None]:
    """Return what the engine of each row is launched with; None where the row says nothing."""
    columns = [rows.texts(name) for name in PRECISION]
    out: list[RuntimePrecision | None] = []
    for i, (given, cache) in enumerate(zip(zip(*columns, strict=True), kv_dtype, strict=True)):
        try:
            found = runtime_of(*given, kv_dtype=cache)
        except MfuroofError as error:
            found = None
            rows.fail(i, str(error).replace("\n", "; "))
        out.append(found.precision if found else None)
    return out


def _check_blank(rows: Rows, names: Sequence[str]) -> None:
    """Refuse rows that say nothing about their requests: an empty step has a 0 or an empty list."""
    nothing = np.logical_and.reduce([rows.blanks(name) for name in names])
    for i in np.flatnonzero(nothing):
        rows.fail(int(i), f"{', '.join(n for n in names if rows.has(n))}: found blanks, expected the step's requests")


def _list_column(rows: Rows, name: str) -> list[list[int]]:
    """Read a list column, or one of JSON texts; a blank is an empty list."""
    out: list[list[int]] = [[] for _ in range(len(rows))]
    if not rows.has(name):
        return out
    for i, given in enumerate(rows.table.column(name).to_pylist()):
        if is_blank(given):
            continue
        value = given
        if isinstance(given, str):
            try:
                value = json.loads(given)
            except (ValueError, RecursionError):
                value = None
        counts = [as_count(v) for v in value] if isinstance(value, list | tuple) else None
        if counts is None or any(c is None or c < 0 for c in counts):
            rows.fail(i, f"{name}: found {str(given)[:60]!r}, expected a list of whole numbers in [0, 2**40]")
        else:
            out[i] = [c for c in counts if c is not None]
    return out


def _check_pairs(rows: Rows, shapes: dict[str, list[list[int]]]) -> None:
    """Let prompts without contexts start from nothing; refuse lists of different lengths."""
    for i, (contexts, tokens) in enumerate(zip(shapes["prefill_contexts"], shapes["prefill_tokens"], strict=True)):
        if not rows.has("prefill_contexts"):
            shapes["prefill_contexts"][i] = [0] * len(tokens)
        elif len(contexts) != len(tokens):
            rows.fail(i, f"prefill_tokens: found {len(tokens)} values, expected {len(contexts)} as in prefill_contexts")


def _ragged(shapes: dict[str, list[list[int]]], members: I64) -> StepBatch:
    prefill = [
        list(zip(shapes["prefill_contexts"][i], shapes["prefill_tokens"][i], strict=True)) for i in members
    ]
    return StepBatch.ragged(prefill=prefill, decode=[shapes["decode_contexts"][i] for i in members])


def _columns(n: int, results: list[tuple[I64, StepResult]]) -> dict[str, pa.Array]:
    """Return the answer columns: components of all groups, null where a group has no such part."""

    def floats(values: np.ndarray, mask: np.ndarray) -> pa.Array:
        return pa.array(values, pa.float64(), mask=mask)

    columns = {"step_time_s": scatter(n, [(rows, r.step_time_s) for rows, r in results], floats)}
    for name in dict.fromkeys(c for _, r in results for c in r.components):
        parts = [(rows, r.op_time_s[name]) for rows, r in results if name in r.op_time_s]
        columns[f"{name}_s"] = scatter(n, parts, floats)
    bounds = [(rows, r.bound) for rows, r in results]
    sources = [(rows, r.source) for rows, r in results]
    columns["bound"] = scatter(n, bounds, lambda v, mask: pa.array(np.array(RESOURCES)[v.astype(int)], mask=mask))
    names = {int(s): s.name.lower() for s in Source}
    columns["source"] = scatter(
        n, sources, lambda v, mask: pa.array([names[int(code)] for code in v], pa.string(), mask=mask)
    )
    return columns
