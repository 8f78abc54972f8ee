"""What the evaluator asks of a cost family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mfuroof._types import F64, U8
from mfuroof.batch import StepBatch

__all__ = ["RESOURCES", "BoundCost"]

RESOURCES = ("compute", "memory", "comm", "overhead")
"""What can bind a step; the position is the code in ``StepResult.bound``."""


class BoundCost(Protocol):
    """A model on a GPU under one cost family, ready to price steps; holds only frozen arrays and numbers.

    Every method takes a batch of ``n`` steps in either form and fills a preallocated float64 array. Nothing is
    rounded, an empty step costs what `components` say it costs (normally 0), and the same step always gives the
    same bits, wherever it stands in a batch.
    """

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts of a step, in the order of the rows of `breakdown`."""
        ...

    def step_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (n,) with step times. [s]"""

    def breakdown(self, batch: StepBatch, out: F64, start: int = 0) -> None:
        """Fill ``out[:, start : start + n]``: row 0 with the bits of `step_times`, then a row a component. [s]

        ``out`` is of shape (1 + len(components), at least start + n) and contiguous.
        """

    def resource_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (4, n) with the time each of `RESOURCES` takes. [s]"""

    def sources(self, batch: StepBatch, source: U8, distance: F64) -> None:
        """Fill the worst `Source` code and the largest distance to data (octaves) among a step's lookups."""

    def flops(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the floating-point operations of one GPU by component, each of shape (n,). [FLOP]"""

    def bytes_moved(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the bytes one GPU moves to and from HBM by component, each of shape (n,). [bytes]"""
