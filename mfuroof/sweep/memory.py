"""Whether the requests of a step fit into GPU memory beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass
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
    stages
        For each kind of pipeline stage what its GPUs need, and the bytes that weights, activations and reserves leave
        on each of them, below 0 where these alone do not fit; empty where the memory is not known. [bytes]
    shortfall
        Why the model does not fit at all, with the numbers; empty where it does.
    """

    stages: tuple[tuple[StageDemand, float], ...]
    shortfall: str = ""

    @classmethod
    def of(cls, evaluator: StepEvaluator, memory_utilization: float) -> Memory:
        """Return the room of a bound model; unknown where the GPU states no memory or the ranks cannot share heads."""
        model, hardware, parallel = evaluator.model, evaluator.hardware, evaluator.parallel
        try:
            room = kv_capacity(
                model, hardware, *astuple(parallel), block_size=BLOCK_SIZE, memory_utilization=memory_utilization
            )
        except InputError:
            return cls(())
        budget, reserved = hardware.hbm_bytes * memory_utilization, float(room.reserved_bytes)
        demands = rank_demands(model, parallel, kv_format_of(model.kv_dtype), CapacityParams())
        stages = tuple((d, budget - reserved - d.weight_bytes - d.activation_bytes) for d in demands)
        shortfall = ""
        if not room.fits:
            beside = float(room.activation_bytes) + reserved
            need = f"needs {room.weight_bytes / GIB:.1f} GiB of weights and {beside / GIB:.1f} GiB beside them per GPU"
            smallest = int(room.smallest_tp_that_fits)
            remedy = f"; tp {smallest} fits" if smallest else ""
            shortfall = f"{need}, of {budget / GIB:.1f} GiB it may use{remedy}"
        return cls(stages, shortfall)

    @property
    def kv_bytes(self) -> float:
        """Room on the GPUs that have the least. [bytes]"""
        return min((left for _, left in self.stages), default=float("nan"))

    def fits(self, columns: Mapping[str, I64]) -> Any:
        """Return whether the caches of all requests of each step fit, bool (n,) or (1,); None where not known.

        Parameters
        ----------
        columns
            The shape axes, each (n,) or (1,).
        """
        new = columns["prefill_new_tokens"]
        present = np.where(new > 0, columns["prefill_batch"], 0)
        prefills = bool(present.any())
        answer: Any = None
        for demand, left in self.stages:
            need = columns["decode_batch"] * demand.sequence_bytes(columns["decode_context"] + 1, BLOCK_SIZE)
            if prefills:
                need = need + present * demand.sequence_bytes(columns["prefill_context"] + new, BLOCK_SIZE)
            answer = need <= left if answer is None else answer & (need <= left)
        return answer
