"""Serving estimates against measured TTFT and TPOT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mfuroof._boundary import MAX_COUNT
from mfuroof._types import F64
from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.serving import Scheduler, estimate, scheduler_of
from mfuroof.validate.scores import Report, batch_bins
from mfuroof.validate.setups import Setups
from mfuroof.validate.silicon import is_silicon, serving_columns
from mfuroof.validate.tables import Columns

__all__ = ["validate_serving"]

_SETTINGS = ("max_batch_tokens", "cached_prefix_len", "max_num_seqs")
_FIELDS = {
    "ttft": ("ttft_s", ("ttft",)),
    "tpot": ("tpot_s", ("tpot",)),
    "itl": ("itl_s", ("itl",)),
    "e2e": ("e2e_latency_s", ("e2e_latency", "e2e")),
}
"""Metrics in seconds: the field of a result, and what columns are called without their unit."""
_COUNTS = (
    "input_len", "output_len", "concurrency", "tp", "pp", "ep", "attention_dp", "max_batch_tokens", "max_num_seqs",
)  # fmt: skip
"""Columns of whole numbers of at least 1."""
_LOADS = ("concurrency", "arrival_rate")
_RATE = "output_tokens_per_s_per_gpu"


def validate_serving(
    table: Any,
    *,
    cost: str = "kernels",
    params: CostParams | None = None,
    scheduler: Callable[[str], Scheduler] = scheduler_of,
    memory_utilization: float = 0.9,
) -> Report:
    """Compare estimates with the measured serving points of a table.

    Parameters
    ----------
    table
        Path of a CSV or Parquet file, Arrow table, or mapping of columns. Either the columns of `predict_serving` with
        ``max_num_seqs``, ``length_distribution`` and ``arrival_rate`` (requests/s, in place of concurrency) besides, of
        which model, gpu, lengths and a load are needed, and measured ``ttft_s, tpot_s, itl_s, e2e_latency_s`` (or
        ``_ms``, or with ``measured_`` before it) or ``output_tokens_per_s_per_gpu``; or AIConfigurator's silicon
        layout, which is recognised.
    cost, params
        As in `StepEvaluator`.
    scheduler
        Function from an engine's name to its scheduler.
    memory_utilization
        Share of the memory that may be used. [fraction]

    Returns
    -------
    Report
        Metrics ``ttft`` and ``tpot``, and ``itl``, ``e2e`` and ``throughput`` where they were measured; columns to
        group by: model, gpu, engine, precision, tp, batch (bins), source.
        A row that cannot be predicted has an error text and counts as failed.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read, lacks a needed column, or has no measured one.
    """
    columns = Columns(table)
    if is_silicon(columns):
        columns = serving_columns(columns)
    columns.need("model", "gpu", "input_len", "output_len")
    if "arrival_rate" not in columns:
        columns.need("concurrency")
    measured = _measured(columns)
    if not any(np.isfinite(m).any() for m in measured.values()):
        columns.need("ttft_s", "tpot_s")
    n = len(columns)
    setups = Setups(columns, cost, params)
    predicted = {name: np.full(n, np.nan) for name in measured}
    numbers = {name: columns.number(name) for name in ("input_len", "output_len", *_LOADS, *_SETTINGS)}
    lengths = columns.text("length_distribution", "")
    errors = _faults(columns, numbers)
    good = np.array([not e for e in errors], dtype=bool)
    closed = numbers["concurrency"] >= 1
    in_flight = np.where(closed, numbers["concurrency"], 0.0)
    for setup, rows in setups.groups().items():
        for spread, loop in dict.fromkeys(zip(lengths[rows].tolist(), closed[rows].tolist(), strict=True)):
            some = rows[(lengths[rows] == spread) & (closed[rows] == loop) & good[rows]]
            if not some.size:
                continue
            load = "concurrency" if loop else "arrival_rate"
            try:
                evaluator = setups.evaluator(setup)
                policy = scheduler(evaluator.engine)
                budget, prefix, seats = (
                    np.where(np.isnan(numbers[name][some]), default, numbers[name][some])
                    for name, default in zip(_SETTINGS, (policy.max_batch_tokens, 0, policy.max_num_seqs), strict=True)
                )
                result = estimate(
                    evaluator,
                    numbers["input_len"][some],
                    numbers["output_len"][some],
                    **{load: numbers[load][some]},
                    length_distribution=spread or None,
                    scheduler=policy,
                    memory_utilization=memory_utilization,
                    max_batch_tokens=budget,
                    cached_prefix_len=prefix,
                    max_num_seqs=seats,
                )
            except MfuroofError as error:
                for i in some:
                    errors[i] = f"{type(error).__name__}: {error}"
                continue
            for name, values in predicted.items():
                values[some] = getattr(result, _RATE if name == "throughput" else _FIELDS[name][0])
            in_flight[some] = np.where(closed[some], in_flight[some], np.nan_to_num(result.running_batch))
            for i, fits in zip(some, result.fits, strict=True):
                errors[i] = "" if fits else "does not fit the memory"
    metrics = {name: (predicted[name], measured[name]) for name in measured}
    times = [columns.time_column(*names) for _, names in _FIELDS.values()]
    return Report(metrics, _groups(columns, in_flight), errors, columns.left_out(*times, _rate_column(columns)))


def _measured(columns: Columns) -> dict[str, F64]:
    """Return TTFT and TPOT, NaN where there is none, and what else was measured."""
    found = {name: columns.seconds(*names) for name, (_, names) in _FIELDS.items()}
    throughput = columns.number(_rate_column(columns))
    kept = {name: values for name, values in found.items() if name in ("ttft", "tpot") or np.isfinite(values).any()}
    return {**kept, "throughput": throughput} if np.isfinite(throughput).any() else kept


def _rate_column(columns: Columns) -> str:
    return f"measured_{_RATE}" if f"measured_{_RATE}" in columns else _RATE


def _faults(columns: Columns, numbers: dict[str, F64]) -> list[str]:
    """Return why a row cannot be asked for, empty where it can: counts are whole numbers, as in `predict_serving`."""
    errors = [""] * len(columns)
    loaded = (numbers["concurrency"] >= 1) | (np.isnan(numbers["concurrency"]) & (numbers["arrival_rate"] > 0))
    for i in np.flatnonzero(~((numbers["input_len"] >= 1) & (numbers["output_len"] >= 1) & loaded)):
        errors[i] = "input_len, output_len or concurrency is missing or below 1"
    counts = {**dict.fromkeys(_COUNTS, 1), "cached_prefix_len": 0}
    for name, least in counts.items():
        values = columns.number(name)
        whole = (values == np.floor(values)) & (values >= least) & (values <= MAX_COUNT)
        for i in np.flatnonzero(~whole & ~np.isnan(values)):
            text = f"{name}: found {values[i]:g}, expected a whole number in [{least}, 2**40]"
            errors[i] = errors[i] or text
    for i in np.flatnonzero(columns.text("mode", "agg") != "agg"):
        errors[i] = errors[i] or "pools apart (mode is not agg): their sizes are not in the table"
    return errors


def _groups(columns: Columns, in_flight: F64) -> dict[str, Any]:
    named = "family" if "family" in columns else "model"
    precision = columns.text("precision" if "precision" in columns else "weight_dtype")
    return {
        "model": np.array([str(m).split("/")[-1] for m in columns.text(named)], dtype=object),
        "gpu": columns.text("gpu"),
        "engine": columns.text("engine", "vllm"),
        "precision": precision,
        "tp": columns.number("tp", 1.0).astype(np.int64),
        "batch": batch_bins(in_flight),
        "source": columns.text("source"),
    }
