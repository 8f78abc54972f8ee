"""Single steps against measured ones."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from mfuroof._types import F64
from mfuroof.errors import InputError, Problem
from mfuroof.params import CostParams
from mfuroof.predict import predict_steps
from mfuroof.units import MS
from mfuroof.validate.scores import Report, batch_bins
from mfuroof.validate.tables import Columns

__all__ = ["validate_steps"]

_MEANS = ("decode_context", "prefill_context")
"""Columns that may hold means of several requests, which are rounded. [tokens]"""


def validate_steps(table: Any, *, cost: str = "kernels", params: CostParams | None = None) -> Report:
    """Compare step times with measured steps.

    Parameters
    ----------
    table
        Path, Arrow table or mapping with one row a step: the columns of `predict_steps` and the measured
        ``step_time_s`` (or ``step_time_ms``, or with ``measured_`` before it). BLIS's step tables (``step_cycle_ms,
        num_decode, kv_tokens_in_use``) are recognised; of those, pure decode steps that are no outliers count.
    cost, params
        As in `StepEvaluator`.

    Returns
    -------
    Report
        Metric ``step``; columns model, gpu, engine, phase (decode, prefill, mixed), batch. A row that cannot be
        predicted has an error text and counts as failed.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read or lacks a needed column.
    """
    columns = Columns(table)
    if "step_cycle_ms" in columns:
        columns = _blis_steps(columns)
    columns.need("model", "gpu")
    measured = columns.seconds("step_time")
    if not np.isfinite(measured).any():
        there = ", ".join(columns.table.column_names)
        raise InputError(Problem("column step_time_s", "no measured time", f"a column among {there}"))
    priced = predict_steps(_whole(columns), cost=cost, params=params)
    predicted = np.array([np.nan if t is None else t for t in priced.column("step_time_s").to_pylist()], np.float64)
    decode, prefill = _requests(columns, "decode"), _requests(columns, "prefill")
    phases = np.where(prefill > 0, np.where(decode > 0, "mixed", "prefill"), np.where(decode > 0, "decode", "empty"))
    groups = {
        "model": np.array([m.split("/")[-1] for m in columns.text("model")], dtype=object),
        "gpu": columns.text("gpu"),
        "engine": columns.text("engine", "vllm"),
        "phase": phases,
        "batch": batch_bins(decode + prefill),
    }
    errors = [e or "" for e in priced.column("error").to_pylist()]
    return Report({"step": (predicted, measured)}, groups, errors, columns.left_out(columns.time_column("step_time")))


def _whole(columns: Columns) -> pa.Table:
    """Return the table as `predict_steps` reads it."""
    table = columns.table
    if "attention_dp" in columns and "dp" not in columns:
        table = table.rename_columns(["dp" if n == "attention_dp" else n for n in table.column_names])
    for name in _MEANS:
        if name in columns and pa.types.is_floating(table.column(name).type):
            rounded = np.rint(columns.number(name))
            at = table.column_names.index(name)
            table = table.set_column(at, name, pa.array(rounded, mask=np.isnan(rounded)))
    return table


def _requests(columns: Columns, phase: str) -> F64:
    """Return how many requests of a phase each step has."""
    lists = "decode_contexts" if phase == "decode" else "prefill_tokens"
    if lists in columns:
        return np.array([_length(v) for v in columns.table.column(lists).to_pylist()], np.float64)
    if phase == "decode":
        return np.nan_to_num(_counts(columns, "decode_batch"))
    present = np.nan_to_num(_counts(columns, "prefill_new_tokens")) > 0
    batch = _counts(columns, "prefill_batch")
    return np.where(present, np.where(np.isnan(batch), 1.0, batch), 0.0)


def _counts(columns: Columns, name: str) -> F64:
    """Return a column of numbers, NaN for what is none: `predict_steps` says what is wrong with those."""
    try:
        return columns.number(name)
    except InputError:
        return np.full(len(columns), np.nan)


def _length(value: Any) -> int:
    try:
        return len(json.loads(value) if isinstance(value, str) else value or ())
    except (TypeError, ValueError):
        return 0


def _blis_steps(source: Columns) -> Columns:
    """Return pure decode steps: the cache a step finds is spread evenly over its requests."""
    decode = source.number("num_decode", 0.0)
    clean = (source.number("clean_decode", 1.0) == 1) & (source.number("outlier", 0.0) == 0) & (decode > 0)
    kept = Columns(source.table.filter(clean.tolist()))
    decode = kept.number("num_decode")
    held = kept.number("kv_tokens_in_use") / np.maximum(kept.number("running"), 1.0)
    return Columns(
        {
            "model": kept.text("model"),
            "gpu": kept.text("gpu"),
            "tp": kept.number("tp", 1.0),
            "decode_batch": decode,
            "decode_context": held,
            "step_time_s": kept.number("step_cycle_ms") * MS,
        }
    )
