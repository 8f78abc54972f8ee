"""The fixed part of a step's shape, spread over one list of cases, and its time as one axis moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mfuroof._boundary import MAX_COUNT, Problems, choice, count_array, spread
from mfuroof._types import F64, I64
from mfuroof.batch import StepBatch
from mfuroof.errors import InputError, Problem
from mfuroof.step import StepEvaluator
from mfuroof.sweep.grid import SHAPE_AXES

__all__ = ["MOST", "Cases", "check_evaluator", "check_range", "labels_of", "title_of"]

MOST = {
    "decode_batch": 4096,
    "prefill_batch": 4096,
    "decode_context": 2**20,
    "prefill_new_tokens": 2**20,
    "prefill_context": 2**20,
}
"""How far each axis is looked at unless told otherwise. [requests or tokens]"""

_USUAL = {"decode_batch": 0, "decode_context": 0, "prefill_batch": 0, "prefill_new_tokens": 0, "prefill_context": 0}
_ALONGSIDE = {"decode_context": ("decode_batch", 1), "prefill_new_tokens": ("prefill_batch", 1)}
"""An axis of lengths needs requests that have them: one, unless told otherwise."""


class Cases:
    """Step shapes that are fixed but for one axis.

    Parameters
    ----------
    axis
        The axis that moves, one of the sweep's shape axes.
    shape
        Values of other axes, numbers or arrays that broadcast; those left out are 0, and the batch that belongs to an
        axis of lengths is 1.
    numbers
        Further float columns that broadcast with them, such as limits.

    Raises
    ------
    UnknownNameError
        No such axis.
    InputError
        Values out of range, shapes that do not broadcast, or a value for the axis itself.
    """

    def __init__(self, axis: str, shape: Mapping[str, Any], numbers: Mapping[str, F64]) -> None:
        self.axis = choice("axis", axis, SHAPE_AXES)
        problems = Problems()
        if shape.get(axis) is not None:
            problems.add(axis, repr(shape[axis])[:60], "nothing: it is the axis that is looked for")
        given = {name: shape.get(name) for name in SHAPE_AXES if name != axis}
        partner, usual = _ALONGSIDE.get(axis, ("", 0))
        arrays: dict[str, Any] = {}
        for name, value in given.items():
            filled = (usual if name == partner else _USUAL[name]) if value is None else value
            arrays[name] = count_array(name, filled, problems)
            if not problems:
                arrays[name] = arrays[name].reshape(np.shape(filled))
        problems.raise_if_any()
        empty = not (np.all(arrays.get("prefill_batch", 1)) and np.all(arrays.get("prefill_new_tokens", 1)))
        if axis == "prefill_context" and empty:
            expected = "at least 1 of each, for a prompt that has a context"
            problems.add("prefill_batch, prefill_new_tokens", "0", expected)
        problems.raise_if_any()
        arrays |= numbers
        flat, _ = spread(arrays)
        self.fixed: dict[str, I64] = {name: flat[name] for name in given}
        self.numbers: dict[str, F64] = {name: flat[name] for name in numbers}
        self.size = int(next(iter(flat.values())).size)

    def columns(self, rows: I64, values: I64) -> dict[str, I64]:
        """Return the shape axes of cases ``rows`` with the moving axis at ``values``, in their order."""
        moving = {self.axis: values}
        return {name: moving[name] if name == self.axis else self.fixed[name][rows] for name in SHAPE_AXES}

    def times(self, evaluator: StepEvaluator, rows: I64, values: I64) -> F64:
        """Return step times of cases ``rows`` with the moving axis at ``values``. [s]"""
        return evaluator.step_time(StepBatch.uniform(**self.columns(rows, values)))

    @property
    def varying(self) -> str:
        """The first column that differs between cases; the last one if none does."""
        columns = {**self.told, **self.numbers} or {self.axis: np.zeros(1)}
        return next((name for name, c in columns.items() if (c != c[:1]).any()), list(columns)[-1])

    @property
    def varying_shape(self) -> str:
        """The same, with lengths and batches before limits."""
        return next((name for name, c in self.told.items() if (c != c[:1]).any()), self.varying)

    @property
    def told(self) -> dict[str, I64]:
        """The fixed axes that were asked about: those that are not 0 throughout."""
        return {name: column for name, column in self.fixed.items() if column.any()}


def check_range(axis: str, low: Any, most: Any, problems: Problems) -> tuple[int, int]:
    """Return the ends of the range in which a number is looked for."""
    smallest = problems.positive_int("low", low, minimum=0)
    largest = problems.positive_int("most", MOST[axis] if most is None else most)
    if largest > MAX_COUNT or smallest > largest:
        problems.add("low, most", f"{smallest}, {largest}", "low <= most <= 2**40")
    return smallest, largest


def check_evaluator(where: str, value: Any) -> None:
    """Raise `InputError` for what is no evaluator."""
    if not isinstance(value, StepEvaluator):
        raise InputError(Problem(where, repr(value)[:100], "a StepEvaluator"))


def labels_of(evaluator: StepEvaluator) -> dict[str, Any]:
    """Return what an evaluator is, as label columns."""
    degrees = evaluator.parallel
    return {
        "model": evaluator.model.name or "unnamed",
        "gpu": evaluator.hardware.name,
        "engine": evaluator.engine,
        "tp_size": degrees.tp_size,
        "pp_size": degrees.pp_size,
        "ep_size": degrees.ep_size,
        "dp_size": degrees.dp_size,
        "weight_dtype": _weights(evaluator),
    }


def title_of(evaluator: StepEvaluator) -> str:
    """Return the name of an evaluator in a sentence."""
    labels = labels_of(evaluator)
    degrees = "".join(
        f" {name}{labels[f'{name}_size']}" for name in ("tp", "pp", "ep", "dp") if labels[f"{name}_size"] > 1
    )
    weights = "" if _weights(evaluator) == "own" else f" in {_weights(evaluator)}"
    return f"{labels['model']}{weights} on {labels['gpu']}{degrees}"


def _weights(evaluator: StepEvaluator) -> str:
    quantised = evaluator.model.quantization
    return quantised.method if quantised.source == "override" else "own"
