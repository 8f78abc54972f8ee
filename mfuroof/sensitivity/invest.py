"""What a better resource or another device would save, and which one to pay for first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof.batch import StepBatch
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.sensitivity.binding import Binder, resources, scaled
from mfuroof.sensitivity.elasticity import Metric, elasticities
from mfuroof.step import StepEvaluator

__all__ = ["Investment", "what_if", "where_to_invest"]


def what_if(
    evaluator: StepEvaluator,
    hardware: Hardware | str | None = None,
    *,
    hold_utilisation: bool = True,
    tables: Any = None,
    **factors: float,
) -> StepEvaluator:
    """Return an evaluator of the same model on a changed device.

    Parameters
    ----------
    evaluator
        What is changed.
    hardware
        Another device, or its name; None for the evaluator's own.
    hold_utilisation
        Carry over the utilisation that was measured on the evaluator's device, operation by operation; otherwise
        another device's own measurements are taken.
    tables
        As in `sensitivity`.
    **factors
        Factors on rates: ``hbm=1.2``, ``peak=2`` (all rates), ``peak_fp8=2``, ``nvlink=``, ``network=``, ``pcie=``.

    Raises
    ------
    InputError
        A factor for what the device has not, or that is no positive number.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> one = StepBatch.uniform(decode_batch=1, decode_context=1000)
    >>> speedup = evaluator.step_time(one) / what_if(evaluator, hbm=1.2).step_time(one)
    >>> bool(1.1 < speedup[0] < 1.2)
    True
    """
    binder = Binder.of(evaluator, tables)
    device = binder.hardware
    if hardware is not None:
        other = get_hardware(hardware)
        device = replace(other, tables=device.tables) if hold_utilisation else other
        if not hold_utilisation:
            binder = replace(binder, tables=tables)
    problems = Problems()
    known = (*resources(device), "peak")
    for name, factor in factors.items():
        if name not in known:
            problems.add(name, factor, f"one of {', '.join(known)}: rates that {device.name} has")
        problems.number(name, factor, 0.0, 1e6, open_low=True)
    problems.raise_if_any()
    return binder.evaluator(scaled(device, factors))


@dataclass(frozen=True, eq=False, repr=False)
class Investment:
    """What a better resource saves over a set of times, the most rewarding first.

    Attributes
    ----------
    improvement
        By how much each resource is made faster. [fraction]
    time_s
        All of them as they are. [s]
    rows
        (resource, elasticity, share of the time saved) of each, by what is saved. [fraction]
    """

    improvement: float
    time_s: float
    rows: tuple[tuple[str, float, float], ...]

    def to_dict(self) -> list[dict[str, Any]]:
        """Return one record per resource."""
        return [{"resource": name, "elasticity": e, "saved": saved} for name, e, saved in self.rows]

    def __repr__(self) -> str:
        width = max(len(name) for name, _, _ in self.rows)
        lines = [f"{'resource':<{width}}  elasticity  saved by {self.improvement:+.0%}"]
        return "\n".join([*lines, *(f"{name:<{width}}  {e:>10.1%}  {s:>7.2%}" for name, e, s in self.rows)])


def where_to_invest(
    evaluator: StepEvaluator,
    times: StepBatch | Metric,
    improvement: float = 0.2,
    *,
    weights: Any = None,
    tables: Any = None,
) -> Investment:
    """Return what each resource would save if it were better, ranked.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    times
        Shapes of n steps; or any other time, as a function of an evaluator: ``lambda e: estimate(e, 1024, 128,
        concurrency=8).ttft_s``.
    improvement
        Relative increase of a rate (overhead is divided by 1 + improvement), above 0. [fraction]
    weights : shape (n,)
        How often each time occurs; once each where left out.
    tables
        As in `sensitivity`.

    Raises
    ------
    InputError
        ``improvement`` or ``weights`` are out of range.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> where_to_invest(evaluator, StepBatch.uniform(decode_batch=1, decode_context=1000)).rows[0][0]
    'hbm'
    """
    problems = Problems()
    gain = problems.number("improvement", improvement, 0.0, 1e6, open_low=True)
    problems.raise_if_any()
    metric: Metric = (lambda e: e.step_time(times)) if isinstance(times, StepBatch) else times
    before = np.atleast_1d(np.asarray(metric(evaluator), np.float64)).ravel()
    often = np.ones(before.size) if weights is None else np.asarray(weights, np.float64)
    if often.shape != before.shape or not np.isfinite(often).all() or (often < 0).any():
        problems.add("weights", f"shape {often.shape}", f"{before.size} finite numbers of at least 0")
    problems.raise_if_any()
    total = float(often @ before)
    binder = Binder.of(evaluator, tables)
    rows = []
    for name, shares in elasticities(evaluator, metric, side="faster", tables=tables).items():
        share = float(often @ (np.ravel(shares) * before)) / total if total > 0 else 0.0
        after = np.asarray(metric(binder.changed(name, 1.0 / (1.0 + gain))), np.float64).ravel()
        rows.append((name, share, 1.0 - float(often @ after) / total if total > 0 else 0.0))
    return Investment(gain, total, tuple(sorted(rows, key=lambda row: -row[2])))
