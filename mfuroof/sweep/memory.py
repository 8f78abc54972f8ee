"""Whether the requests of a step fit into GPU memory beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import I64
from mfuroof.capacity import CapacityParams, kv_capacity
from mfuroof.capacity.demand import StageDemand, rank_demands
from mfuroof.errors import InputError
from mfuroof.precision import kv_format_of
from mfuroof.step import StepEvaluator
from mfuroof.units import GIB

__all__ = ["Memory"]

BLOCK_SIZE = 16
"""Tokens of one KV block in the engines' default. [tokens]"""


@dataclass(frozen=True, eq=False)
class Memory:
    """Room for the KV cache of one case.

    Attributes
    ----------
    kv_bytes
        Room left on one GPU by weights, activations and reserves; below 0 where these alone do not fit, NaN where
        the memory is not known. [bytes]
    demand
        What a sequence keeps on one GPU; None where the memory is not known.
    shortfall
        Why the model does not fit at all, with the numbers; empty where it does.
    """

    kv_bytes: float
    demand: StageDemand | None
    shortfall: str = ""

    @classmethod
    def of(cls, evaluator: StepEvaluator, memory_utilization: float) -> Memory:
        """Return the room of a bound model; unknown where the GPU states no memory or the ranks cannot share heads."""
        model, hardware, parallel = evaluator.model, evaluator.hardware, evaluator.parallel
        try:
            room = kv_capacity(
                model, hardware, parallel.tp_size, block_size=BLOCK_SIZE, memory_utilization=memory_utilization
            )
        except InputError:
            return cls(np.nan, None)
        (demand,) = rank_demands(model, parallel, kv_format_of(model.kv_dtype), CapacityParams())
        budget = hardware.hbm_bytes * memory_utilization
        beside = float(room.activation_bytes + room.reserved_bytes)
        left = budget - float(room.weight_bytes) - beside
        shortfall = ""
        if not room.fits:
            need = f"needs {room.weight_bytes / GIB:.1f} GiB of weights and {beside / GIB:.1f} GiB beside them per GPU"
            smallest = int(room.smallest_tp_that_fits)
            remedy = f"; tp {smallest} fits" if smallest else ""
            shortfall = f"{need}, of {budget / GIB:.1f} GiB it may use{remedy}"
        return cls(left, demand, shortfall)

    def fits(self, columns: Mapping[str, I64]) -> Any:
        """Return whether the caches of all requests of each step fit, bool (n,) or (1,); None where not known.

        Parameters
        ----------
        columns
            The shape axes, each (n,) or (1,).
        """
        demand = self.demand
        if demand is None:
            return None
        new = columns["prefill_new_tokens"]
        need = columns["decode_batch"] * demand.sequence_bytes(columns["decode_context"] + 1, BLOCK_SIZE)
        present = np.where(new > 0, columns["prefill_batch"], 0)
        if present.any():
            need = need + present * demand.sequence_bytes(columns["prefill_context"] + new, BLOCK_SIZE)
        return need <= self.kv_bytes
