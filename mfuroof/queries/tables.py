"""Answers as Arrow tables whose columns say their unit and meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof.queries.meanings import quantity, unit_by_name
from mfuroof.sweep import view_serving, view_step
from mfuroof.sweep.schema import LABEL_MEANINGS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["answer_table", "span_of", "with_units"]

_MEANINGS: dict[str, tuple[str, str]] = {
    **LABEL_MEANINGS,
    **view_serving.MEANINGS,
    **view_step.MEANINGS,
    "limit_s": ("s", "time a step may take"),
    "next_step_time_s": ("s", "time of the step with one more"),
    "limited_by": ("-", "what keeps the answer from being larger: time, memory, or range"),
    "gapless": ("-", "whether every smaller value of the range meets the limits too"),
    "base": ("-", "what is compared with"),
    "other": ("-", "what is compared"),
    "per": ("-", "what is compared: steps, GPU-seconds of steps, or their price"),
    "threshold": ("-", "gain that is crossed"),
    "lasting": ("-", "whether it stays so up to the end of the range"),
    "gain_at_low": ("-", "base over other at the beginning of the range"),
    "gain_at_crossing": ("-", "base over other at the crossing"),
    "gain_at_most": ("-", "base over other at the end of the range"),
    "resource": ("-", "resource with the largest share of the step time from the crossing on"),
    "bound_at_low": ("-", "binding resource at the beginning of the range"),
    "bound_at_most": ("-", "binding resource at the end of the range"),
    "tpot_limit_s": ("s", "time per output token a client accepts"),
    "ttft_limit_s": ("s", "time to first token a client accepts"),
}


def answer_table(labels: Mapping[str, Any], columns: Mapping[str, Any]) -> pa.Table:
    """Return a table of label columns, constant, and columns (n,); masked values become nulls."""
    import pyarrow as pa

    rows = max((len(c) for c in columns.values()), default=0)
    arrays: dict[str, Any] = {name: pa.array([value] * rows) for name, value in labels.items()}
    for name, column in columns.items():
        mask = np.ma.getmaskarray(column) if np.ma.isMaskedArray(column) else None
        arrays[name] = pa.array(np.ma.getdata(column), mask=mask)
    return pa.table(list(arrays.values()), schema=pa.schema([_field(name, a.type) for name, a in arrays.items()]))


def with_units(table: pa.Table) -> pa.Table:
    """Return a table whose fields say their unit and meaning, where these are known."""
    import pyarrow as pa

    return table.cast(pa.schema([_field(f.name, f.type) for f in table.schema]))


def span_of(rows: Sequence[Mapping[str, Any]], answer: str, across: str) -> str:
    """Return the first and the last answer of rows that have one: ``goes from 205 at ... to 3 at ...``."""
    ends = [
        f"{quantity(row[answer], unit_by_name(answer))} at {across} {quantity(row[across], unit_by_name(across))}"
        for row in (rows[0], rows[-1])
    ]
    return f"is {ends[0]}" if len(rows) == 1 else f"goes from {ends[0]} to {ends[1]}"


def _field(name: str, kind: pa.DataType) -> pa.Field:
    import pyarrow as pa

    unit, meaning = _MEANINGS.get(name) or (unit_by_name(name) or "-", "")
    return pa.field(name, kind, metadata={"unit": unit, "meaning": meaning} if meaning else {"unit": unit})
