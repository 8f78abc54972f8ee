"""Single steps against measured ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfuroof.batch import StepBatch
from mfuroof.errors import MfuroofError
from mfuroof.params import CostParams
from mfuroof.units import MS
from mfuroof.validate.scores import Report, batch_bins
from mfuroof.validate.setups import Setups
from mfuroof.validate.tables import Columns

__all__ = ["validate_steps"]

_SHAPE = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")


def validate_steps(table: Any, *, cost: str = "kernels", params: CostParams | None = None) -> Report:
    """Compare step times with measured steps.

    Parameters
    ----------
    table
        Path, Arrow table or mapping with one row a step: ``model, gpu, engine, tp, ...`` as in `validate_serving`,
        the uniform shape ``decode_batch, decode_context, prefill_batch, prefill_new_tokens, prefill_context`` (those
        that are there; 0 otherwise) and the measured ``step_time_s``. BLIS's step tables (``step_cycle_ms,
        num_decode, kv_tokens_in_use``) are recognised; of those, pure decode steps that are no outliers count.
    cost, params
        As in `StepEvaluator`.

    Returns
    -------
    Report
        Metric ``step``; columns model, gpu, phase (decode, prefill, mixed), batch.

    Raises
    ------
    TableFormatError, InputError
        The table cannot be read or lacks a needed column.
    """
    columns = Columns(table)
    if "step_cycle_ms" in columns:
        columns = _blis_steps(columns)
    columns.need("model", "gpu", "step_time_s")
    setups = Setups(columns, cost, params)
    shape = {name: np.nan_to_num(columns.number(name, 0.0)) for name in _SHAPE}
    predicted = np.full(len(columns), np.nan)
    errors = [""] * len(columns)
    for setup, rows in setups.groups().items():
        try:
            batch = StepBatch.uniform(**{name: np.rint(values[rows]) for name, values in shape.items()})
            predicted[rows] = setups.evaluator(setup).step_time(batch)
        except MfuroofError as error:
            for i in rows:
                errors[i] = f"{type(error).__name__}: {error}"
    prefill, decode = shape["prefill_batch"] * shape["prefill_new_tokens"] > 0, shape["decode_batch"] > 0
    groups = {
        "model": np.array([m.split("/")[-1] for m in columns.text("model")], dtype=object),
        "gpu": columns.text("gpu"),
        "phase": np.where(prefill & decode, "mixed", np.where(prefill, "prefill", "decode")),
        "batch": batch_bins(shape["decode_batch"] + shape["prefill_batch"]),
    }
    return Report({"step": (predicted, columns.number("step_time_s"))}, groups, errors)


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
