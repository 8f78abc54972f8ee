"""Replays of measured request traces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.serving import RequestTimes, Scheduler, replay, scheduler_of
from mfuroof.units import MS
from mfuroof.validate.scores import Report
from mfuroof.validate.setups import Setups
from mfuroof.validate.tables import Columns

__all__ = ["validate_requests"]

_NAMES = {
    "gpu": ("gpu", "hardware"),
    "input_len": ("input_len", "input_tokens", "prompt_tokens"),
    "output_len": ("output_len", "output_tokens", "completion_tokens"),
    "max_batch_tokens": ("max_batch_tokens", "max_num_batched_tokens"),
    "max_num_seqs": ("max_num_seqs",),
}
_FIGURES = {"ttft": "ttft_s", "tpot": "tpot_s", "e2e": "e2e_latency_s"}


def validate_requests(
    table: Any,
    *,
    cached_prefix_len: Mapping[str, int] | None = None,
    memory_utilization: float = 0.9,
    cost: str = "kernels",
    params: CostParams | None = None,
    scheduler: Callable[[str], Scheduler] = scheduler_of,
) -> Report:
    """Replay the traces of a table and compare the mean TTFT, TPOT and end-to-end latency of each.

    Parameters
    ----------
    table
        Path, Arrow table or mapping with one row a request: ``dataset, model, gpu, arrival_s, input_len, output_len``
        (or ``input_tokens``/``prompt_tokens``, ``output_tokens``/``completion_tokens``), measured ``ttft_ms, tpot_ms,
        e2e_ms``, and where they differ from the defaults ``engine, tp, max_batch_tokens`` (or
        ``max_num_batched_tokens``) and ``max_num_seqs``.
    cached_prefix_len
        Tokens of each prompt but the first that the prefix cache held, by dataset. [tokens]
    memory_utilization
        Share of the memory that may be used. [fraction]
    cost, params, scheduler
        As in `validate_serving`.

    Returns
    -------
    Report
        One row a dataset; metrics ``ttft``, ``tpot`` and ``e2e``, means over its requests.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read or lacks a needed column.
    """
    source = Columns(table)
    columns = _renamed(source)
    columns.need("dataset", "model", "gpu", "arrival_s", "input_len", "output_len", "ttft_ms", "tpot_ms", "e2e_ms")
    setups = Setups(columns, cost, params)
    datasets = columns.text("dataset")
    numbers = {
        name: columns.number(name)
        for name in ("arrival_s", "input_len", "output_len", "max_batch_tokens", "max_num_seqs")
    }
    measured = {name: columns.number(f"{name}_ms") * MS for name in _FIGURES}
    names = list(dict.fromkeys(datasets))
    predicted = {name: np.full(len(names), np.nan) for name in _FIGURES}
    errors = []
    for at, dataset in enumerate(names):
        rows = np.flatnonzero(datasets == dataset)
        rows = rows[np.argsort(numbers["arrival_s"][rows], kind="stable")]
        prefix = (cached_prefix_len or {}).get(dataset, 0)
        try:
            evaluator = setups.evaluator(setups.rows[int(rows[0])])
            policy = scheduler(evaluator.engine)
            budget, seats = (numbers[name][rows[0]] for name in ("max_batch_tokens", "max_num_seqs"))
            policy = replace(
                policy,
                max_batch_tokens=policy.max_batch_tokens if np.isnan(budget) else int(budget),
                max_num_seqs=policy.max_num_seqs if np.isnan(seats) else int(seats),
            )
            times: RequestTimes = replay(
                evaluator,
                numbers["input_len"][rows],
                numbers["output_len"][rows],
                numbers["arrival_s"][rows] - numbers["arrival_s"][rows[0]],
                cached_prefix_len=np.where(np.arange(rows.size) > 0, prefix, 0),
                scheduler=policy,
                memory_utilization=memory_utilization,
            )
        except MfuroofError as error:
            errors.append(f"{type(error).__name__}: {error}")
            continue
        errors.append("")
        means = times.mean()
        for name, field in _FIGURES.items():
            predicted[name][at] = means[field]
    means_measured = {
        name: [float(np.nanmean(values[datasets == d])) for d in names] for name, values in measured.items()
    }
    first = [int(np.flatnonzero(datasets == d)[0]) for d in names]
    groups = {
        "dataset": np.array(names, dtype=object),
        "model": columns.text("model")[first],
        "gpu": columns.text("gpu")[first],
        "requests": np.array([int((datasets == d).sum()) for d in names]),
    }
    return Report({name: (predicted[name], means_measured[name]) for name in _FIGURES}, groups, errors)


def _renamed(source: Columns) -> Columns:
    """Return the table under our names: one word for the engine, the GPU without remarks."""
    table = {name: source.table.column(name).to_pylist() for name in source.table.column_names}
    for ours, theirs in _NAMES.items():
        for name in theirs:
            if name in table:
                table[ours] = table[name]
                break
    table["engine"] = [text.split()[0] if text else "vllm" for text in source.text("engine", "vllm")]
    table["gpu"] = [str(text).split(" (")[0] for text in table.get("gpu", [])] or [""] * len(source)
    for name in ("ep", "dp"):  # such tables say whether experts are spread, not over how many GPUs
        table.pop(name, None)
    return Columns(table)
