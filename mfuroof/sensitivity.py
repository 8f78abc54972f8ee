"""Where to invest: how step times, or any other time, answer to bandwidth, peak rates, links, overhead and load.

A changed device holds the measured utilisation of every operation against what binds it, so a time is a sum of terms
that are each proportional to the time one resource takes for its work (its *cost*, one over its rate), and of fixed
ones. It is piecewise linear in every cost, and a one-sided difference quotient over a step of 2**-16 is its exact
derivative, unless one operation changes from one bound to another within that step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.errors import InputError, MfuroofWarning, Problem
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.step import StepEvaluator

__all__ = ["SHAPES", "Investment", "Sensitivity", "elasticities", "sensitivity", "what_if", "where_to_invest"]

STEP = 2.0**-16
"""Relative change of a cost for a derivative: small against the distance between kinks, large against rounding."""
SHAPES = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
"""Columns of a uniform batch whose increase by one is priced."""
Metric = Callable[[StepEvaluator], Any]
"""From an evaluator to times: a step, a TTFT, a TPOT."""

_RATES = {
    "hbm": "hbm_bytes_per_s",
    "nvlink": "nvlink_bytes_per_s",
    "network": "network_bytes_per_s",
    "pcie": "pcie_bytes_per_s",
}


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
    result = evaluator.evaluate(batch)
    time = result.step_time_s
    shares = dict(elasticities(evaluator, lambda e: e.step_time(batch), side=side, tables=tables))
    shares["overhead"] = _ratio(result.resource_time_s["overhead"], time)
    fixed = np.where(time > 0, 1.0 - np.sum(list(shares.values()), axis=0), 0.0)
    marginal = _marginal(evaluator, batch, time)
    load = {name: _ratio(extra * _column(batch, name), time) for name, extra in marginal.items()}
    return Sensitivity(
        time, MappingProxyType(shares), fixed, MappingProxyType(load), MappingProxyType(marginal)
    )


def elasticities(
    evaluator: StepEvaluator,
    metric: Metric,
    *,
    side: Literal["slower", "faster"] = "slower",
    tables: Any = None,
) -> Mapping[str, F64]:
    """Return elasticities of any time to the costs of the device's resources.

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
        Keys ``hbm``, ``peak_<dtype>`` of every rate, and the links the device has; arrays of the metric's shape; 0
        where the metric is 0. [fraction]

    Raises
    ------
    InputError
        As in `sensitivity`.
    """
    choice("side", side, ("slower", "faster"))
    binder = _Binder.of(evaluator, tables)
    base = np.asarray(metric(binder.evaluator(binder.hardware)), np.float64)
    if not np.array_equal(base, np.asarray(metric(evaluator), np.float64), equal_nan=True):
        found = "other times than the evaluator's own"
        raise InputError(Problem("the evaluator bound again", found, "the same", "Give the `tables` it was made with."))
    cost = 1.0 + STEP if side == "slower" else 1.0 - STEP
    out: dict[str, F64] = {}
    for name in _resources(binder.hardware):
        changed = np.asarray(metric(binder.evaluator(_scaled(binder.hardware, {name: 1.0 / cost}))), np.float64)
        slope = (changed - base) / (cost - 1.0)
        out[name] = np.where(np.abs(slope) < 1e-9 * np.abs(base), 0.0, _ratio(slope, base))
    return MappingProxyType(out)


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
    binder = _Binder.of(evaluator, tables)
    device = binder.hardware
    if hardware is not None:
        other = get_hardware(hardware)
        device = replace(other, tables=device.tables) if hold_utilisation else other
    problems = Problems()
    known = (*_resources(device), "peak")
    for name, factor in factors.items():
        if name not in known:
            problems.add(name, factor, f"one of {', '.join(known)}: rates that {device.name} has")
        problems.number(name, factor, 0.0, 1e6, open_low=True)
    problems.raise_if_any()
    return binder.evaluator(_scaled(device, factors))


@dataclass(frozen=True, eq=False, repr=False)
class Investment:
    """What a better resource saves over a set of steps, the most rewarding first.

    Attributes
    ----------
    improvement
        By how much each resource is made faster. [fraction]
    time_s
        Time of all steps as they are. [s]
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
    batch: StepBatch,
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
    batch
        Shapes of n steps.
    improvement
        Relative increase of a rate (overhead is divided by 1 + improvement), above 0. [fraction]
    weights : shape (n,)
        How often each step occurs; once each where left out.
    tables
        As in `sensitivity`.

    Raises
    ------
    InputError
        ``improvement`` or ``weights`` are out of range.
    """
    problems = Problems()
    gain = problems.number("improvement", improvement, 0.0, 1e6, open_low=True)
    often = np.ones(len(batch)) if weights is None else np.asarray(weights, np.float64)
    if often.shape != (len(batch),) or not np.isfinite(often).all() or (often < 0).any():
        problems.add("weights", f"shape {often.shape}", f"{len(batch)} finite numbers of at least 0")
    problems.raise_if_any()
    s = sensitivity(evaluator, batch, side="faster", tables=tables)
    total = float(often @ s.step_time_s)
    binder = _Binder.of(evaluator, tables)
    rows = []
    for name, shares in s.elasticity.items():
        if name == "overhead":
            after = s.step_time_s * (1.0 - shares * gain / (1.0 + gain))
        else:
            after = binder.evaluator(_scaled(binder.hardware, {name: 1.0 + gain})).step_time(batch)
        share = float(often @ (shares * s.step_time_s)) / total if total > 0 else 0.0
        rows.append((name, share, 1.0 - float(often @ after) / total if total > 0 else 0.0))
    return Investment(gain, total, tuple(sorted(rows, key=lambda row: -row[2])))


# ---------------------------------------------------------------- binding again


@dataclass(frozen=True, eq=False)
class _Binder:
    """Makes evaluators that differ from one in the device only, with its measured utilisations."""

    source: StepEvaluator
    hardware: Hardware
    tables: Any

    @classmethod
    def of(cls, evaluator: StepEvaluator, tables: Any) -> _Binder:
        hardware = evaluator.hardware
        if evaluator.cost == "kernels" and tables is None:
            from mfuroof.ops.siblings import tables_for

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MfuroofWarning)
                found = tables_for(hardware, evaluator.engine, missing=evaluator.params.missing)
            if hardware.tables is None and found.gpu != hardware.name:  # keep to the relative, however far it moves
                hardware = replace(hardware, tables=found.gpu)
        return cls(evaluator, hardware, tables)

    def evaluator(self, hardware: Hardware) -> StepEvaluator:
        """Return the evaluator on another device; what there was to warn about has been said."""
        e, p = self.source, self.source.parallel
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MfuroofWarning)
            return StepEvaluator(
                e.model, hardware, p.tp_size, p.pp_size, p.ep_size, p.dp_size,
                cost=e.cost, engine=e.engine, tables=self.tables, params=e.params,  # type: ignore[arg-type]
            )  # fmt: skip


def _resources(hardware: Hardware) -> tuple[str, ...]:
    peaks = tuple(f"peak_{dtype}" for dtype in hardware.peak_flops_per_s)
    return ("hbm", *peaks, *(name for name in ("nvlink", "network", "pcie") if getattr(hardware, _RATES[name]) > 0))


def _scaled(hardware: Hardware, factors: Mapping[str, float]) -> Hardware:
    changes: dict[str, Any] = {_RATES[n]: getattr(hardware, _RATES[n]) * f for n, f in factors.items() if n in _RATES}
    every = factors.get("peak", 1.0)
    peaks = {d: rate * every * factors.get(f"peak_{d}", 1.0) for d, rate in hardware.peak_flops_per_s.items()}
    return replace(hardware, peak_flops_per_s=peaks, **changes)


def _ratio(a: F64, b: F64) -> F64:
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(np.shape(a), np.shape(b))), where=np.asarray(b) != 0)


# ---------------------------------------------------------------- load


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
