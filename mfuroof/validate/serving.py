"""Serving estimates against measured TTFT and TPOT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.serving import Scheduler, estimate, scheduler_of
from mfuroof.units import MS
from mfuroof.validate.scores import Report, batch_bins
from mfuroof.validate.setups import Setups
from mfuroof.validate.silicon import is_silicon, serving_columns
from mfuroof.validate.tables import Columns

__all__ = ["validate_serving"]

_SETTINGS = ("max_batch_tokens", "cached_prefix_len", "max_num_seqs")


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
        Path of a CSV or Parquet file, Arrow table, or mapping of columns. Either our columns: ``model, gpu, engine,
        tp, pp, ep, attention_dp, weight_dtype, kv_dtype, moe_dtype, input_len, output_len, concurrency,
        max_batch_tokens, max_num_seqs, cached_prefix_len, length_distribution`` with ``ttft_s, tpot_s`` or
        ``ttft_ms, tpot_ms``, of which model, gpu, lengths and concurrency are needed; or AIConfigurator's silicon
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
        Metrics ``ttft`` and ``tpot``; columns to group by: model, gpu, engine, precision, tp, batch (bins), source.
        A row that cannot be predicted has an error text and counts as failed.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read, lacks a needed column, or has no measured one.
    """
    columns = Columns(table)
    if is_silicon(columns):
        columns = serving_columns(columns)
    columns.need("model", "gpu", "input_len", "output_len", "concurrency")
    measured = {name: _measured(columns, name) for name in ("ttft", "tpot")}
    if not any(np.isfinite(m).any() for m in measured.values()):
        columns.need("ttft_s", "tpot_s")
    n = len(columns)
    setups = Setups(columns, cost, params)
    predicted = {name: np.full(n, np.nan) for name in measured}
    errors = [""] * n
    numbers = {name: columns.number(name) for name in ("input_len", "output_len", "concurrency", *_SETTINGS)}
    lengths = columns.text("length_distribution", "")
    blank = np.zeros(n, dtype=bool)
    for name in ("input_len", "output_len", "concurrency"):
        blank |= ~(numbers[name] >= 1)
    for i in np.flatnonzero(blank):
        errors[i] = "input_len, output_len or concurrency is missing or below 1"
    apart = ~blank & (columns.text("mode", "agg") != "agg")
    for i in np.flatnonzero(apart):
        errors[i] = "pools apart (mode is not agg): their sizes are not in the table"
    blank |= apart
    for setup, rows in setups.groups().items():
        for spread in dict.fromkeys(lengths[rows]):
            some = rows[(lengths[rows] == spread) & ~blank[rows]]
            if not some.size:
                continue
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
                    numbers["concurrency"][some],
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
            predicted["ttft"][some], predicted["tpot"][some] = result.ttft_s, result.tpot_s
            for i, fits in zip(some, result.fits, strict=True):
                errors[i] = "" if fits else "does not fit the memory"
    return Report({name: (predicted[name], measured[name]) for name in measured}, _groups(columns), errors)


def _measured(columns: Columns, name: str) -> Any:
    return columns.number(f"{name}_s") if f"{name}_s" in columns else columns.number(f"{name}_ms") * MS


def _groups(columns: Columns) -> dict[str, Any]:
    named = "family" if "family" in columns else "model"
    precision = columns.text("precision" if "precision" in columns else "weight_dtype")
    return {
        "model": np.array([str(m).split("/")[-1] for m in columns.text(named)], dtype=object),
        "gpu": columns.text("gpu"),
        "engine": columns.text("engine", "vllm"),
        "precision": precision,
        "tp": columns.number("tp", 1.0).astype(np.int64),
        "batch": batch_bins(columns.number("concurrency", 0.0)),
        "source": columns.text("source"),
    }
