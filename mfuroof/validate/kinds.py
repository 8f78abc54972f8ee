"""Which comparison a measured table is for, by its columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfuroof._boundary import choice
from mfuroof.errors import InputError, Problem
from mfuroof.params import CostParams
from mfuroof.validate.requests import validate_requests
from mfuroof.validate.runs import validate_runs
from mfuroof.validate.scores import Report
from mfuroof.validate.serving import validate_serving
from mfuroof.validate.silicon import is_silicon
from mfuroof.validate.steps import validate_steps
from mfuroof.validate.tables import Columns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["GROUPS", "joined", "kind_of", "validate_table"]

GROUPS = {
    "steps": ("phase", "engine", "gpu", "model", "batch"),
    "serving": ("engine", "gpu", "model", "batch"),
    "requests": ("gpu", "model", "dataset"),
    "runs": ("gpu", "model", "batch"),
}
"""Kinds of tables, and the columns their reports are grouped by; the first is also what tells marks of a plot apart."""


def kind_of(columns: Columns) -> str:
    """Return the kind of a table.

    Raises
    ------
    InputError
        No measured column that is known.
    """

    def has(*names: str) -> bool:
        return any(f"{prefix}{name}" in columns for prefix in ("", "measured_") for name in names)

    if has("rate_rps") and has("system_prompt_len"):
        return "runs"
    if has("arrival_s") and has("dataset"):
        return "requests"
    if has("step_time_s", "step_time_ms", "step_cycle_ms"):
        return "steps"
    times = tuple(f"{n}_{u}" for n in ("ttft", "tpot", "itl", "e2e", "e2e_latency") for u in ("s", "ms"))
    if is_silicon(columns) or has(*times, "output_tokens_per_s_per_gpu"):
        return "serving"
    there = ", ".join(columns.table.column_names)
    expected = "step_time_s, or ttft_s, tpot_s, itl_s, e2e_latency_s, output_tokens_per_s_per_gpu (times also in _ms)"
    raise InputError(Problem("measured column", f"none among {there}", f"one of {expected}"))


def validate_table(
    table: Any,
    kind: str | None = None,
    *,
    cost: str = "kernels",
    params: CostParams | None = None,
    memory_utilization: float = 0.9,
) -> Report:
    """Compare predictions with a table of measurements of any known kind.

    Parameters
    ----------
    table
        As in `validate_steps`, `validate_serving`, `validate_requests` or `validate_runs`.
    kind
        ``"steps"``, ``"serving"``, ``"requests"`` or ``"runs"``; None to tell by the columns.
    cost, params, memory_utilization
        As in those.

    Raises
    ------
    UnknownNameError
        No such kind.
    TableFormatError, InputError
        The table cannot be read or lacks a needed column.
    """
    columns = Columns(table)
    kind = kind_of(columns) if kind is None else choice("kind of table", kind, GROUPS)
    if kind == "steps":
        return validate_steps(columns.table, cost=cost, params=params)
    if kind == "serving":
        return validate_serving(columns.table, cost=cost, params=params, memory_utilization=memory_utilization)
    compare = validate_requests if kind == "requests" else validate_runs
    return compare(columns.table, cost=cost, params=params, memory_utilization=memory_utilization)


def joined(table: pa.Table, report: Report) -> pa.Table:
    """Return a table with ``<metric>_predicted`` and ``error`` beside its own columns.

    Where its rows are not those of the report (traces, and layouts of which some rows count) the report's table is
    returned: what rows are grouped by, predictions and measurements.
    """
    found = report.to_arrow()
    if table.num_rows != len(report):
        return found
    for name in found.column_names:
        if not (name.endswith("_predicted") or name == "error"):
            continue
        if name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, found.column(name))
        else:
            table = table.append_column(name, found.column(name))
    return table
