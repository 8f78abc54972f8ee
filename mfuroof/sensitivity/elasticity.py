"""How much step times depend on bandwidth, peak rates, links, overhead and load.

A changed device holds the measured utilisation of every operation against what binds it, so a time is a sum of terms
that are each proportional to the time one resource takes for its work (its *cost*, one over its rate), and of fixed
ones. It is piecewise linear in every cost, and a one-sided difference quotient over a step of 2**-16 is its exact
derivative, unless one operation changes from one bound to another within that step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from mfuroof._boundary import choice
from mfuroof._types import F64
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.errors import InputError, Problem
from mfuroof.sensitivity.binding import OVERHEAD, Binder, resources
from mfuroof.step import StepEvaluator

__all__ = ["SHAPES", "Metric", "Sensitivity", "elasticities", "load_elasticities", "sensitivity"]

STEP = 2.0**-16
"""Relative change of a cost for a derivative: small against the distance between kinks, large against rounding."""
SHAPES = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
"""Columns of a uniform batch whose increase by one is priced."""
Metric = Callable[[StepEvaluator], Any]
"""From an evaluator to times: a step, a TTFT, a TPOT."""


@dataclass(frozen=True, eq=False, repr=False)
class Sensitivity:
    """Elasticities of n step times.

    Attributes
    ----------
    step_time_s
        Times themselves (n,). [s]
    elasticity
        By resource, each (n,): relative growth of the time per relative growth of the resource's cost, in [0, 1]: the
        share of the step it governs. Keys ``hbm``, ``peak_<dtype>``, the links the device has, and ``overhead`` (time
        beside the kernels). [fraction]
    fixed
        What none of them changes: kernel launches and the latency of links (n,). With it they add up to 1. [fraction]
    load
        Elasticity to a column of `SHAPES`, each (n,): relative growth per relative growth; empty for ragged batches.
    marginal_s
        Time one more request, or one more token of each request, takes, by the same keys, each (n,). [s]
    """

    step_time_s: F64
    elasticity: Mapping[str, F64]
    fixed: F64
    load: Mapping[str, F64]
    marginal_s: Mapping[str, F64]

    def total(self) -> dict[str, float]:
        """Return the elasticities of the sum of all steps, the largest first."""
        weight = self.step_time_s / max(float(self.step_time_s.sum()), 1e-300)
        sums = {name: float(weight @ values) for name, values in self.elasticity.items()}
        return dict(sorted(sums.items(), key=lambda item: -item[1]))

    def to_arrow(self) -> Any:
        """Return an Arrow table: ``step_time_s``, one column per elasticity, ``fixed``, marginal times."""
        import pyarrow as pa

        columns = {"step_time_s": self.step_time_s, **self.elasticity, "fixed": self.fixed}
        columns |= {f"load_{name}": values for name, values in self.load.items()}
        columns |= {f"marginal_{name}_s": values for name, values in self.marginal_s.items()}
        return pa.table({name: pa.array(values) for name, values in columns.items()})

    def __repr__(self) -> str:
        rows = [(name, f"{share:6.1%}") for name, share in self.total().items() if share > 0]
        weight = self.step_time_s / max(float(self.step_time_s.sum()), 1e-300)
        rows.append(("fixed", f"{float(weight @ self.fixed):6.1%}"))
        width = max(len(name) for name, _ in rows)
        lines = [f"Sensitivity of {self.step_time_s.size} steps, by share of their time:"]
        return "\n".join([*lines, *(f"  {name:<{width}}  {share}" for name, share in rows)])


def sensitivity(
    evaluator: StepEvaluator,
    batch: StepBatch,
    *,
    side: Literal["slower", "faster"] = "slower",
    tables: Any = None,
) -> Sensitivity:
    """Return elasticities of step times to resources, overhead and load.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    batch
        Shapes of n steps.
    side
        Which one-sided derivative: towards a slower or a faster resource. They differ where an operation is as much
        bound by one as by another.
    tables
        What the evaluator was made with, if not None.

    Raises
    ------
    InputError
        Bound again, the evaluator does not give the same times: its ``tables`` have to be given.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> s = sensitivity(evaluator, StepBatch.uniform(decode_batch=[1], decode_context=1000))
    >>> bool(s.elasticity["hbm"][0] > 0.8), float(s.elasticity["peak_fp8"][0])
    (True, 0.0)
    """
    time = evaluator.step_time(batch)
    shares = elasticities(evaluator, lambda e: e.step_time(batch), side=side, tables=tables)
    fixed = np.where(time > 0, 1.0 - np.sum(list(shares.values()), axis=0), 0.0)
    marginal = _marginal(evaluator, batch, time)
    load = {name: _ratio(extra * _column(batch, name), time) for name, extra in marginal.items()}
    return Sensitivity(time, shares, fixed, MappingProxyType(load), MappingProxyType(marginal))


def elasticities(
    evaluator: StepEvaluator,
    metric: Metric,
    *,
    side: Literal["slower", "faster"] = "slower",
    tables: Any = None,
) -> Mapping[str, F64]:
    """Return elasticities of any time to the costs of the device's resources and of the overhead.

    Parameters
    ----------
    evaluator
        Model, device, cost.
    metric
        From an evaluator to times, for instance ``lambda e: serving.estimate(e, 1024, 128, concurrency=8).ttft_s``.
        Called once per resource, with evaluators of changed devices.
    side, tables
        As in `sensitivity`.

    Returns
    -------
    mapping of str to ndarray
        Keys ``hbm``, ``peak_<dtype>`` of every rate, the links the device has, and ``overhead`` (time beside the
        kernels); arrays of the metric's shape; 0 where the metric is 0. [fraction]

    Raises
    ------
    InputError
        As in `sensitivity`.
    """
    choice("side", side, ("slower", "faster"))
    binder = Binder.of(evaluator, tables)
    base = np.asarray(metric(binder.evaluator(binder.hardware)), np.float64)
    if not np.array_equal(base, np.asarray(metric(evaluator), np.float64), equal_nan=True):
        found = "other times than the evaluator's own"
        raise InputError(Problem("the evaluator bound again", found, "the same", "Give the `tables` it was made with."))
    cost = 1.0 + STEP if side == "slower" else 1.0 - STEP
    out: dict[str, F64] = {}
    for name in (*resources(binder.hardware), OVERHEAD):
        changed = np.asarray(metric(binder.changed(name, cost)), np.float64)
        slope = (changed - base) / (cost - 1.0)
        out[name] = np.where(np.abs(slope) < 1e-9 * np.abs(base), 0.0, _ratio(slope, base))
    return MappingProxyType(out)


def _column(batch: StepBatch, name: str) -> F64:
    return np.broadcast_to(np.asarray(getattr(batch, name), np.float64), (len(batch),))


def _marginal(evaluator: StepEvaluator, batch: StepBatch, time: F64) -> dict[str, F64]:
    columns = batch.columns
    if not isinstance(columns, UniformColumns):
        return {}
    given = {name: np.broadcast_to(getattr(columns, name), (len(batch),)) for name in (*SHAPES, "emits")}
    out: dict[str, F64] = {}
    for name in SHAPES:
        out[name] = evaluator.step_time(StepBatch.uniform(**{**given, name: given[name] + 1})) - time
    return out


def load_elasticities(time: Callable[..., Any], **load: int) -> Mapping[str, F64]:
    """Return elasticities of any time to whole numbers it is a function of: one more of each is priced.

    Parameters
    ----------
    time
        Called with every keyword of ``load``, for instance ``lambda concurrency, input_len: estimate(e, input_len,
        128, concurrency).ttft_s``.
    **load
        Where to take them.

    Returns
    -------
    mapping of str to ndarray
        Relative growth of the time per relative growth of the number; of the time's shape. [fraction]
    """
    base = np.asarray(time(**load), np.float64)
    out = {}
    for name, value in load.items():
        more = np.asarray(time(**{**load, name: value + 1}), np.float64)
        out[name] = _ratio((more - base) * value, base)
    return MappingProxyType(out)


def _ratio(a: F64, b: F64) -> F64:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=np.asarray(b) != 0)
