"""Grids of shapes for tables, and step times on them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64, I64
from mfuroof.batch import StepBatch
from mfuroof.errors import MissingTableError
from mfuroof.step import StepEvaluator

__all__ = ["component_table", "is_additive", "octaves", "positive_ints", "profiled_counts", "times"]


def octaves(low: int, high: int, per_octave: int = 1) -> I64:
    """Return whole numbers from ``low`` to ``high``, both included, ``per_octave`` to each doubling."""
    steps = max(math.ceil(per_octave * math.log2(high / low) - 1e-9), 0)
    values = np.rint(low * 2.0 ** (np.arange(steps + 1) / per_octave)).astype(np.int64)
    return np.unique(np.append(np.minimum(values, high), high))


def profiled_counts(high: int) -> I64:
    """Return token or request counts as profilers take them: all up to 16, then ever coarser, up to ``high``."""
    values = np.concatenate([np.arange(1, 17), np.arange(20, 65, 4), np.arange(80, max(high, 80) + 1, 16)])
    return np.unique(np.append(values[values <= high], high))


def times(evaluator: StepEvaluator, **shapes: Any) -> F64:
    """Return step times of uniform shapes (`StepBatch.uniform`), broadcast against one another. [s]

    Raises
    ------
    MissingTableError
        A step has no time (``missing="nan"``): a table with holes is not exported.
    """
    names = list(shapes)
    columns = np.broadcast_arrays(*(np.asarray(shapes[name]) for name in names))
    batch = StepBatch.uniform(**{k: v.ravel() for k, v in zip(names, columns, strict=True)})
    out = evaluator.step_time(batch)
    _check_finite(out)
    return out.reshape(columns[0].shape)


def component_table(evaluator: StepEvaluator, batch: StepBatch) -> dict[str, F64]:
    """Return the parts of each step by name. [s]

    Raises
    ------
    MissingTableError
        As `times`.
    """
    rows = np.empty((1 + len(evaluator.components), len(batch)))
    evaluator.bound.breakdown(batch, rows)
    _check_finite(rows)
    return dict(zip(evaluator.components, rows[1:], strict=True))


def is_additive(evaluator: StepEvaluator) -> bool:
    """Return whether the components of a step add up to its time; a roofline takes their maximum instead."""
    batch = StepBatch.uniform([0, 8, 8, 64], [0, 700, 700, 9000], [1, 0, 2, 1], [512, 0, 128, 2048], [0, 0, 64, 4096])
    rows = np.empty((1 + len(evaluator.components), len(batch)))
    evaluator.bound.breakdown(batch, rows)
    return bool(np.allclose(rows[1:].sum(axis=0), rows[0], rtol=1e-9, atol=0.0, equal_nan=True))


def positive_ints(**values: Any) -> dict[str, int]:
    """Return the values as whole numbers of at least 1, or raise `InputError` with all that are none."""
    problems = Problems()
    clean = {}
    for name, value in values.items():
        clean[name] = problems.positive_int(name, value)
        if clean[name] > 2**30:
            problems.add(name, clean[name], "at most 2**30")
    problems.raise_if_any()
    return clean


def _check_finite(seconds: F64) -> None:
    if not np.isfinite(seconds).all():
        raise MissingTableError(
            "some of the shapes to export",
            (),
            'Bind the evaluator with CostParams(missing="roofline") or other tables.',
        )
