"""The room one configuration leaves for its KV cache, for many utilisations, lengths and reserves at once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from mfuroof._boundary import MAX_COUNT
from mfuroof._types import F64, I64
from mfuroof.capacity.demand import StageDemand, rank_demands
from mfuroof.capacity.inputs import Inputs
from mfuroof.capacity.params import CapacityParams
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.precision import kv_format_of

__all__ = ["Context", "Room", "memory_bytes", "room_of"]


def memory_bytes(device: Hardware, params: CapacityParams) -> float:
    """Return the memory of a device by the convention of ``params``."""
    step = params.memory_step_bytes
    return float(np.ceil(device.hbm_bytes / step) * step) if step else device.hbm_bytes


class Context:
    """What all elements of one call share; needs are counted once for each configuration."""

    def __init__(
        self,
        model: ModelConfig,
        params: CapacityParams,
        memory_bytes: float,
        block_size: int,
        weight_bytes_per_param: float | None,
    ) -> None:
        self._weight_bytes_per_param = weight_bytes_per_param
        self._checkpoint = model
        self.params, self.memory_bytes, self.block_size = params, memory_bytes, block_size
        self._models: dict[str | None, ModelConfig] = {}
        self._demands: dict[Any, tuple[StageDemand, ...]] = {}

    def model(self, weight_dtype: str | None) -> ModelConfig:
        """Return the model with that weight format; None for its own."""
        if weight_dtype is None and self._weight_bytes_per_param is None:
            return self._checkpoint
        if weight_dtype not in self._models:
            self._models[weight_dtype] = self._checkpoint.with_precision(
                weight_dtype=weight_dtype, weight_bytes_per_param=self._weight_bytes_per_param
            )
        return self._models[weight_dtype]

    def demands(self, parallel: Parallel, kv: str | None, weight: str | None) -> tuple[StageDemand, ...]:
        """Return the needs of each distinct stage."""
        key = (parallel, kv, weight)
        if key not in self._demands:
            model = self.model(weight)
            self._demands[key] = rank_demands(model, parallel, kv_format_of(kv or model.kv_dtype), self.params)
        return self._demands[key]

    def reserved_bytes(self, parallel: Parallel) -> float:
        """Return what is kept back on one GPU."""
        p = self.params
        gpus = parallel.tp_size if p.flat else parallel.num_gpus
        return (
            p.framework_bytes + p.graph_bytes + (p.comm_bytes if gpus > 1 else 0) + p.adapter_bytes / parallel.tp_size
        )


class Room(NamedTuple):
    """Rows over the elements of one configuration."""

    blocks: I64
    sequences: I64 | None
    weight_bytes: F64
    token_bytes: F64
    activation_bytes: F64
    reserved_bytes: F64

    @property
    def fits(self) -> Any:
        """Whether there is room for a block, and for a sequence where sequences are counted."""
        return (self.blocks > 0) if self.sequences is None else (self.blocks > 0) & (self.sequences > 0)


def room_of(context: Context, inputs: Inputs, at: I64, parallel: Parallel, kv: str | None, weight: str | None) -> Room:
    """Return the room of the elements ``at`` in one configuration; the stage with the fewest blocks decides."""
    reserved = np.full(at.size, context.reserved_bytes(parallel))
    if inputs.reserved_bytes is not None:
        reserved = inputs.reserved_bytes[at]
    budget = context.memory_bytes * inputs.memory_utilization[at] - reserved
    rows = []
    sequences = None if inputs.seq_len is None else np.full(at.size, MAX_COUNT)
    for d in context.demands(parallel, kv, weight):
        activation = np.full(at.size, d.activation_bytes)
        if inputs.activation_bytes is not None:
            activation = inputs.activation_bytes[at]
        left = np.floor(np.maximum(budget - d.weight_bytes - activation, 0.0))
        blocks = _count(left, np.full(at.size, d.token_bytes * context.block_size))
        if inputs.seq_len is not None and sequences is not None:
            most = _count(left, d.sequence_bytes(inputs.seq_len[at], context.block_size))
            sequences = np.minimum(most, sequences)
        rows.append((blocks, np.full(at.size, d.weight_bytes), np.full(at.size, d.token_bytes), activation))
    tightest = np.argmin([row[0] for row in rows], axis=0)[None]
    blocks, weights, tokens, activation = (
        np.take_along_axis(np.stack(column), tightest, axis=0)[0] for column in zip(*rows, strict=True)
    )
    return Room(blocks, sequences, weights, tokens, activation, reserved)


def _count(left: F64, each: F64) -> I64:
    """Return how many of a size there is room for; `MAX_COUNT` where they need none and there is any room."""
    with np.errstate(divide="ignore", invalid="ignore"):
        counts = np.where(each > 0, np.floor(left / each), np.where(left > 0, MAX_COUNT, 0))
    return np.minimum(counts, MAX_COUNT).astype(np.int64)
