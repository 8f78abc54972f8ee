"""Everything that was fitted, chosen without the model or the GPU it is judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfuroof.errors import InputError, Problem
from mfuroof.params import CostParams
from mfuroof.serving import Scheduler, scheduler_of
from mfuroof.units import MS, US
from mfuroof.validate.scores import Report
from mfuroof.validate.serving import validate_serving
from mfuroof.validate.tables import Columns

__all__ = ["LAUNCHES_S", "OVERHEADS_S", "SEQUENCES_S", "STEPS_S", "Constants", "leave_each_out", "leave_one_out"]

LAUNCHES_S = tuple(x * MS for x in (0.0, 0.1, 0.2, 0.3))
"""Candidates of `Scheduler.layer_launch_s`. [s]"""
OVERHEADS_S = tuple(x * MS for x in (5.0, 10.0, 20.0, 30.0))
"""Candidates of `Scheduler.request_overhead_s`. [s]"""
STEPS_S = tuple(x * MS for x in (0.2, 0.4, 0.8))
"""Candidates of `EngineProfile.step_overhead_s`. [s]"""
SEQUENCES_S = tuple(x * US for x in (4.0, 8.0, 16.0))
"""Candidates of `EngineProfile.sequence_overhead_s`. [s]"""


class Constants(NamedTuple):
    """What is fitted; the names are those of the report's columns."""

    step_overhead_s: float
    sequence_overhead_s: float
    layer_launch_s: float
    request_overhead_s: float


def leave_one_out(table: Any, by: str = "model", **options: Any) -> Report:
    """Predict each value of a column with constants chosen, engine by engine, on the rows with other values.

    Parameters
    ----------
    table
        As in `validate_serving`.
    by
        Column of the report that names what is held out: ``"model"`` or ``"gpu"``, for instance.
    options
        As in `leave_each_out`.

    Returns
    -------
    Report
        As each of `leave_each_out`.

    Raises
    ------
    InputError
        No engine has two values.
    """
    return leave_each_out(table, (by,), **options)[by]


def leave_each_out(
    table: Any,
    columns: Sequence[str] = ("model", "gpu"),
    *,
    launches_s: Sequence[float] = LAUNCHES_S,
    overheads_s: Sequence[float] = OVERHEADS_S,
    steps_s: Sequence[float] = STEPS_S,
    sequences_s: Sequence[float] = SEQUENCES_S,
    cost: str = "kernels",
    params: CostParams | None = None,
    memory_utilization: float = 0.9,
) -> dict[str, Report]:
    """Return `leave_one_out` for several columns, from one set of predictions.

    Parameters
    ----------
    table, cost, params, memory_utilization
        As in `validate_serving`.
    columns
        What is held out, one after the other.
    launches_s, overheads_s
        Candidates of the two fitted constants of a `Scheduler`. [s]
    steps_s, sequences_s
        Candidates of the two fitted overheads of an `EngineProfile`, which they replace. [s]

    Returns
    -------
    dict
        Column to a report of the rows of engines that have two values or more in it; the constants that were chosen
        stand in the columns of `Constants`.

    Raises
    ------
    InputError
        No engine has two values.

    Notes
    -----
    A candidate's mark is the mean over (model, GPU) groups of the median TTFT error plus the mean TPOT error, so that
    a model with many rows weighs no more than one with few.
    """
    source = Columns(table).table
    base = CostParams() if params is None else params
    candidates = [Constants(*c) for c in product(steps_s, sequences_s, launches_s, overheads_s)]

    def report(constants: Constants) -> Report:
        def scheduler(engine: str) -> Scheduler:
            serving = {name: getattr(constants, name) for name in ("layer_launch_s", "request_overhead_s")}
            return replace(scheduler_of(engine), **serving)

        overheads = {name: getattr(constants, name) for name in ("step_overhead_s", "sequence_overhead_s")}
        own = replace(base, engine_overheads=False, **overheads)
        return validate_serving(
            source, cost=cost, params=own, memory_utilization=memory_utilization, scheduler=scheduler
        )

    reports = [report(c) for c in candidates]
    return {by: _held_out(reports, candidates, by) for by in columns}


def _held_out(reports: Sequence[Report], candidates: Sequence[Constants], by: str) -> Report:
    columns = reports[0].columns
    groups = np.array([f"{m} {g}" for m, g in zip(columns["model"], columns["gpu"], strict=True)], dtype=object)
    chosen = np.full(len(groups), -1)
    for engine in np.unique(columns["engine"].astype(str)):
        mine = columns["engine"] == engine
        values = np.unique(columns[by][mine].astype(str))
        for value in values if values.size > 1 else []:
            out = mine & (columns[by].astype(str) == value)
            marks = [_mark(r, mine & ~out, groups) for r in reports]
            if not np.isnan(marks).all():
                chosen[out] = int(np.nanargmin(marks))
    rows = np.flatnonzero(chosen >= 0)
    if not rows.size:
        raise InputError(Problem(by, "one value for each engine", "two or more"))
    metrics = {}
    for name in reports[0].metrics:
        predicted = np.array([reports[chosen[i]].metrics[name][0][i] for i in rows])
        metrics[name] = (predicted, reports[0].metrics[name][1][rows])
    kept = {name: values[rows] for name, values in columns.items()}
    for at, name in enumerate(Constants._fields):
        kept[name] = np.array([candidates[chosen[i]][at] for i in rows])
    return Report(metrics, kept, [reports[0].errors[i] for i in rows])


def _mark(report: Report, rows: NDArray[np.bool_], groups: NDArray[Any]) -> float:
    marks = []
    for group in np.unique(groups[rows].astype(str)):
        these = rows & (groups.astype(str) == group)
        marks.append(report.score("ttft", these).median + report.score("tpot", these).mean)
    return float(np.nanmean(marks)) if marks else float("nan")
