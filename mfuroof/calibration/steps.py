"""Measured steps of bound evaluators, and the fit to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mfuroof._boundary import Problems, choice
from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.calibration.fit import NEUTRAL, PARAMETERS, Linear
from mfuroof.calibration.folds import Observations, calibration_of
from mfuroof.calibration.record import Calibration
from mfuroof.costs.groups import groups_of
from mfuroof.step import StepEvaluator

__all__ = ["DEFAULT_FIT", "Measured", "calibrate"]

DEFAULT_FIT = ("step_overhead_s", "layer_overhead_s", "sequence_overhead_s")
"""What is fitted where nothing else is asked for."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Measured steps of one evaluator.

    Attributes
    ----------
    evaluator
        Bound with ``cost="kernels"``; its own overheads are kept out of the fit and replaced by it.
    batch
        Shapes of n steps.
    step_time_s
        Measured times (n,). [s]
    group
        Name by which residuals are reported and folds are held out, for instance the model.
    tables
        Tables the evaluator was bound to, where they are not the embedded ones.
    """

    evaluator: StepEvaluator
    batch: StepBatch
    step_time_s: F64
    group: str
    tables: Any = None


def calibrate(measured: Sequence[Measured], fit: Sequence[str] = DEFAULT_FIT, *, origin: str = "") -> Calibration:
    """Fit overheads to measured step times.

    Parameters
    ----------
    measured
        Measured steps by evaluator.
    fit
        Which of `PARAMETERS` to fit; the others keep their neutral values (factor 1, overheads 0).
    origin
        Where the measurements come from, kept in the result.

    Raises
    ------
    InputError
        No data, nothing to fit, times that are not positive, lengths that differ, or an evaluator of another cost.
    UnknownNameError
        A name in ``fit`` is no parameter.

    Warns
    -----
    MfuroofWarning
        The data do not determine a parameter (one model cannot tell step from layer overhead).
    """
    names = [choice("parameter", name, PARAMETERS) for name in dict.fromkeys(fit)]
    _check(measured, names)
    slopes = np.concatenate([_effects(m, names) for m in measured])

    def linearised(values: F64) -> Linear:
        given = dict(zip(names, values.tolist(), strict=True))
        at = np.concatenate([_rebound(m, given).step_time(m.batch) for m in measured])
        return Linear(at - slopes @ values, slopes)

    sizes = [len(m.batch) for m in measured]

    def labels(values: Sequence[str]) -> np.ndarray:
        return np.repeat(np.array(values, dtype=object), sizes)

    seen = Observations(
        np.concatenate([np.asarray(m.step_time_s, dtype=np.float64) for m in measured]),
        np.concatenate([m.evaluator.step_time(m.batch) for m in measured]),
        linearised,
        {
            "group": labels([m.group for m in measured]),
            "model": labels([m.evaluator.model.name for m in measured]),
            "gpu": labels([m.evaluator.hardware.name for m in measured]),
            "engine": labels([m.evaluator.engine for m in measured]),
        },
        np.ones(sum(sizes), dtype=bool),
    )
    return calibration_of(seen, names, origin, {"quantities": ["step_time"]})


def _check(measured: Sequence[Measured], names: Sequence[str]) -> None:
    problems = Problems()
    if not names:
        problems.add("fit", "no parameter", f"some of {', '.join(PARAMETERS)}")
    if not measured or not sum(len(m.batch) for m in measured):
        problems.add("measured", "no steps", "measured steps")
    for m in measured:
        times = np.asarray(m.step_time_s, dtype=np.float64)
        if m.evaluator.cost != "kernels":
            problems.add(f"{m.group}: evaluator", m.evaluator.cost, 'cost="kernels"')
        if times.shape != (len(m.batch),):
            problems.add(f"{m.group}: step_time_s", f"shape {times.shape}", f"({len(m.batch)},) as in the batch")
        elif not (np.isfinite(times) & (times > 0)).all():
            problems.add(f"{m.group}: step_time_s", "times that are not positive", "positive seconds")
    problems.raise_if_any()


def _effects(m: Measured, names: Sequence[str]) -> F64:
    """Return what a unit of each parameter adds to each step (n, p): kernel time, 1, layers or sequences."""
    layers = m.evaluator.model.num_hidden_layers
    effects: dict[str, Callable[[], F64]] = {
        "kernel_time_factor": lambda: _rebound(m, {}).step_time(m.batch),
        "step_overhead_s": lambda: np.ones(len(m.batch)),
        "layer_overhead_s": lambda: np.full(len(m.batch), float(layers)),
        "sequence_overhead_s": lambda: np.asarray(groups_of(m.batch).sequences, dtype=np.float64),
    }
    return np.stack([effects[name]() for name in names], axis=1)


def _rebound(m: Measured, values: Mapping[str, float]) -> StepEvaluator:
    """Return the evaluator with these overheads in place of the engine's own."""
    e = m.evaluator
    given: dict[str, Any] = {**NEUTRAL, **values}
    return StepEvaluator(
        e.model,
        e.hardware,
        e.parallel.tp_size,
        e.parallel.pp_size,
        e.parallel.ep_size,
        e.parallel.dp_size,
        engine=e.engine,
        tables=m.tables,
        params=replace(e.params, engine_overheads=False, **given),
    )
