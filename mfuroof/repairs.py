"""How much making a bound evaluator monotone changes what was measured, component by component."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.params import CostParams
from mfuroof.step import StepEvaluator

__all__ = ["ComponentRepair", "monotone_repairs"]

BATCHES = 2 ** np.arange(0, 10)
CONTEXTS = 2 ** np.arange(0, 16) - 1
"""Decode lattice: the lengths that tables hold, less the new token."""
PROMPTS = 2 ** np.arange(0, 15)
TOGETHER = 2 ** np.arange(0, 6)
SAME = 1e-12


@dataclass(frozen=True)
class ComponentRepair:
    """What monotone repair does to one component over a lattice of steps.

    Attributes
    ----------
    component
        Its name.
    points, changed
        Steps in which it takes time, and in how many of them the repair changes it.
    mean, largest
        Relative change over those steps. [fraction]
    largest_at
        Shape of the step with the largest change, as arguments of `StepBatch.uniform`; empty if nothing changes.
    """

    component: str
    points: int
    changed: int
    mean: float
    largest: float
    largest_at: dict[str, int]


def monotone_repairs(
    model: ModelConfig | str | Path | dict[str, Any],
    hardware: Hardware | str,
    tp_size: int = 1,
    *,
    params: CostParams | None = None,
    **options: Any,
) -> tuple[ComponentRepair, ...]:
    """Compare the repaired evaluator of a setup with the raw one.

    Parameters
    ----------
    model, hardware, tp_size, **options
        As in `StepEvaluator`.
    params
        Conventions; ``monotone`` is set both ways here.

    Returns
    -------
    tuple of ComponentRepair
        By component, over decode steps of 1 to 512 requests with contexts up to 32 k tokens and prefill steps of 1 to
        32 prompts of up to 16 k tokens, all at powers of two: where attention tables have rows of their own.

    Raises
    ------
    MfuroofError
        As `StepEvaluator`.

    Notes
    -----
    The tables themselves are never changed: `KernelTables.family` and the lookups return what was measured, and
    ``CostParams(monotone=False)`` prices with it.
    """
    given = params or CostParams()
    repaired = StepEvaluator(model, hardware, tp_size, params=replace(given, monotone=True), **options)
    raw = StepEvaluator(model, hardware, tp_size, params=replace(given, monotone=False), **options)
    shapes, batch = _lattice()
    before, after = raw.evaluate(batch).op_time_s, repaired.evaluate(batch).op_time_s
    return tuple(_compare(name, before[name], after[name], shapes) for name in repaired.components)


def _lattice() -> tuple[dict[str, np.ndarray[Any, np.dtype[np.int64]]], StepBatch]:
    batch, context = (x.ravel() for x in np.meshgrid(BATCHES, CONTEXTS, indexing="ij"))
    prompts, length = (x.ravel() for x in np.meshgrid(TOGETHER, PROMPTS, indexing="ij"))
    nothing = np.zeros_like
    shapes = {
        "decode_batch": np.concatenate([batch, nothing(prompts)]),
        "decode_context": np.concatenate([context, nothing(length)]),
        "prefill_batch": np.concatenate([nothing(batch), prompts]),
        "prefill_new_tokens": np.concatenate([nothing(context), length]),
    }
    return shapes, StepBatch.uniform(**shapes)


def _compare(name: str, before: F64, after: F64, shapes: dict[str, Any]) -> ComponentRepair:
    there = np.flatnonzero((before > 0.0) & np.isfinite(before) & np.isfinite(after))
    change = np.abs(after[there] / before[there] - 1.0)
    changed = int((change > SAME).sum())
    if not changed:
        return ComponentRepair(name, there.size, 0, 0.0, 0.0, {})
    worst = int(there[np.argmax(change)])
    at = {key: int(values[worst]) for key, values in shapes.items() if values[worst]}
    return ComponentRepair(name, there.size, changed, float(change.mean()), float(change.max()), at)
