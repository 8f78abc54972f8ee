"""Open-loop estimates against the means of measured runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.serving import Lengths, Scheduler, estimate, scheduler_of
from mfuroof.units import MS
from mfuroof.validate.scores import Report, batch_bins
from mfuroof.validate.setups import Setups
from mfuroof.validate.tables import Columns

__all__ = ["validate_runs"]

_CHECKPOINTS = {
    "RedHatAI/Llama-4-Scout-17B-16E-Instruct-FP8-dynamic": "meta-llama/Llama-4-Scout-17B-16E-Instruct",
}
_UNCACHED = 13.0
"""Tokens of a prompt that the prefix cache of these runs did not hold (10 to 16). [tokens]"""
_TEMPLATE = 1.05
"""Prompt tokens over those of system prompt and question: the chat template, and words that take two tokens."""
_VARIATION = 0.1


def validate_runs(
    table: Any,
    *,
    memory_utilization: float = 0.9,
    cost: str = "kernels",
    params: CostParams | None = None,
    scheduler: Callable[[str], Scheduler] = scheduler_of,
) -> Report:
    """Compare open-loop estimates with run means in the layout of BLIS's experiment tables.

    Parameters
    ----------
    table
        Path, Arrow table or mapping with one row a stage of a run: ``model, gpu, tp, precision, rate_rps,
        system_prompt_len, question_len, output_len, max_num_batched_tokens, max_num_seqs, ttft_mean_ms, tpot_mean_ms,
        e2e_mean_ms``. Rows without a rate (summaries of stages) and repeats (``same_run_as``) are left out.
    memory_utilization
        Share of the memory that may be used. [fraction]
    cost, params, scheduler
        As in `validate_serving`.

    Returns
    -------
    Report
        Metrics ``ttft``, ``tpot`` and ``e2e``; columns model, gpu, run, batch.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read or lacks a needed column.
    """
    source = Columns(table)
    source.need("model", "gpu", "rate_rps", "system_prompt_len", "question_len", "output_len", "tpot_mean_ms")
    kept = np.isfinite(source.number("rate_rps")) & (source.text("same_run_as") == "")
    columns = Columns(_setup_columns(Columns(source.table.filter(kept.tolist()))))
    n = len(columns)
    setups = Setups(columns, cost, params)
    inputs = {name: columns.number(name) for name in ("input_len", "output_len", "rate_rps")}
    budget, seats = columns.number("max_num_batched_tokens"), columns.number("max_num_seqs")
    fields = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_latency_s"}
    predicted = {name: np.full(n, np.nan) for name in fields}
    in_flight = np.zeros(n)
    errors = [""] * n
    for setup, rows in setups.groups().items():
        try:
            evaluator = setups.evaluator(setup)
            policy = scheduler(evaluator.engine)
            result = estimate(
                evaluator,
                inputs["input_len"][rows],
                inputs["output_len"][rows],
                arrival_rate=inputs["rate_rps"][rows],
                cached_prefix_len=np.maximum(inputs["input_len"][rows] - _UNCACHED, 0.0),
                length_distribution=Lengths(1.0, _VARIATION),
                scheduler=policy,
                memory_utilization=memory_utilization,
                max_batch_tokens=np.where(np.isnan(budget[rows]), policy.max_batch_tokens, budget[rows]),
                max_num_seqs=np.where(np.isnan(seats[rows]), policy.max_num_seqs, seats[rows]),
            )
        except MfuroofError as error:
            for i in rows:
                errors[i] = f"{type(error).__name__}: {error}"
            continue
        for name, field in fields.items():
            predicted[name][rows] = getattr(result, field)
        in_flight[rows] = result.running_batch
    measured = {name: columns.number(f"{name}_mean_ms") * MS for name in fields}
    groups = {
        "model": np.array([m.split("/")[-1] for m in columns.text("model")], dtype=object),
        "gpu": columns.text("gpu"),
        "run": columns.text("run"),
        "batch": batch_bins(np.nan_to_num(in_flight)),
    }
    return Report({name: (predicted[name], measured[name]) for name in fields}, groups, errors)


def _setup_columns(source: Columns) -> dict[str, Any]:
    table: dict[str, Any] = {name: source.table.column(name).to_pylist() for name in source.table.column_names}
    table["model"] = [_CHECKPOINTS.get(m, m) for m in source.text("model")]
    eight_bit = source.text("precision") == "FP8"
    table["weight_dtype"] = np.where(eight_bit, "fp8", "").tolist()
    table["engine"] = [text.split()[0] for text in source.text("engine", "vllm")]
    given = source.number("system_prompt_len") + source.number("question_len")
    known = source.number("prompt_len_mean")
    table["input_len"] = np.where(np.isnan(known), _TEMPLATE * given, known).tolist()
    answered = source.number("output_len_mean")
    table["output_len"] = np.where(np.isnan(answered), source.number("output_len"), answered).tolist()
    return table
