"""The serving view's own constants, chosen without the model or the GPU they are judged on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from mfuroof.errors import InputError, Problem
from mfuroof.params import CostParams
from mfuroof.serving import Scheduler, scheduler_of
from mfuroof.units import MS
from mfuroof.validate.scores import Report
from mfuroof.validate.serving import validate_serving

__all__ = ["LAUNCHES_S", "OVERHEADS_S", "leave_one_out"]

LAUNCHES_S = tuple(x * MS for x in (0.0, 0.1, 0.2, 0.3))
"""Candidates of `Scheduler.layer_launch_s`. [s]"""
OVERHEADS_S = tuple(x * MS for x in (5.0, 10.0, 20.0, 30.0))
"""Candidates of `Scheduler.request_overhead_s`. [s]"""


def leave_one_out(
    table: Any,
    by: str = "model",
    *,
    launches_s: Sequence[float] = LAUNCHES_S,
    overheads_s: Sequence[float] = OVERHEADS_S,
    cost: str = "kernels",
    params: CostParams | None = None,
    memory_utilization: float = 0.9,
) -> Report:
    """Predict each value of a column with constants chosen, engine by engine, on the rows with other values.

    Parameters
    ----------
    table
        As in `validate_serving`.
    by
        Column of the report that names what is held out: ``"model"`` or ``"gpu"``, for instance.
    launches_s, overheads_s
        Candidates of the two fitted constants of a `Scheduler`. [s]
    cost, params, memory_utilization
        As in `validate_serving`.

    Returns
    -------
    Report
        Rows of engines that have two values or more; the chosen constants stand in columns ``layer_launch_s`` and
        ``request_overhead_s``.

    Raises
    ------
    InputError
        No engine has two values.

    Notes
    -----
    A candidate's mark is the mean over (model, GPU) groups of the median TTFT error plus the mean TPOT error, so that
    a model with many rows weighs no more than one with few.
    """
    candidates = list(product(launches_s, overheads_s))

    def report(launch_s: float, overhead_s: float) -> Report:
        def scheduler(engine: str) -> Scheduler:
            return replace(scheduler_of(engine), layer_launch_s=launch_s, request_overhead_s=overhead_s)

        return validate_serving(
            table, cost=cost, params=params, memory_utilization=memory_utilization, scheduler=scheduler
        )

    reports = [report(*candidate) for candidate in candidates]
    columns = reports[0].columns
    groups = np.array([f"{m} {g}" for m, g in zip(columns["model"], columns["gpu"], strict=True)], dtype=object)
    chosen = np.full(len(groups), -1)
    for engine in np.unique(columns["engine"].astype(str)):
        mine = columns["engine"] == engine
        values = np.unique(columns[by][mine].astype(str))
        for value in values if values.size > 1 else []:
            out = mine & (columns[by].astype(str) == value)
            marks = [_mark(r, mine & ~out, groups) for r in reports]
            chosen[out] = int(np.nanargmin(marks))
    rows = np.flatnonzero(chosen >= 0)
    if not rows.size:
        raise InputError(Problem(by, "one value for each engine", "two or more"))
    metrics = {}
    for name in reports[0].metrics:
        predicted = np.array([reports[chosen[i]].metrics[name][0][i] for i in rows])
        metrics[name] = (predicted, reports[0].metrics[name][1][rows])
    kept = {name: values[rows] for name, values in columns.items()}
    kept["layer_launch_s"] = np.array([candidates[chosen[i]][0] for i in rows])
    kept["request_overhead_s"] = np.array([candidates[chosen[i]][1] for i in rows])
    return Report(metrics, kept, [reports[0].errors[i] for i in rows])


def _mark(report: Report, rows: np.ndarray, groups: np.ndarray) -> float:
    marks = []
    for group in np.unique(groups[rows].astype(str)):
        these = rows & (groups.astype(str) == group)
        marks.append(report.score("ttft", these).median + report.score("tpot", these).mean)
    return float(np.nanmean(marks)) if marks else float("nan")
