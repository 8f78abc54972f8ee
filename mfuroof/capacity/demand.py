"""What one rank of each pipeline stage needs: weights, activations, and KV bytes by token and by sequence."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.capacity.activation import activation_bytes
from mfuroof.capacity.flat import flat_kv_bytes_per_token, flat_weight_bytes
from mfuroof.capacity.params import CapacityParams
from mfuroof.models import ModelConfig
from mfuroof.models.sharding import stage_models, weight_bytes_per_rank
from mfuroof.parallel import Parallel
from mfuroof.precision import KvFormat

__all__ = ["StageDemand", "rank_demands"]


@dataclass(frozen=True)
class StageDemand:
    """Needs of one rank of a stage.

    Parameters
    ----------
    weight_bytes, activation_bytes
        Of the rank. [bytes]
    token_bytes
        KV bytes that one token adds over the stage's layers where no window caps it. [bytes]
    caches
        (bytes per token, window) of each kind of layer; the window None where every token is kept. [bytes, tokens]
    state_bytes
        What a sequence keeps whatever its length: recurrent states, convolution windows. [bytes]
    """

    weight_bytes: float
    activation_bytes: float
    token_bytes: float
    caches: tuple[tuple[float, int | None], ...]
    state_bytes: float

    def sequence_bytes(self, seq_len: I64, block_size: int) -> F64:
        """Return the bytes that one sequence of each length keeps, in whole blocks."""
        total = np.full(seq_len.shape, self.state_bytes)
        for per_token, window in self.caches:
            kept = seq_len if window is None else np.minimum(seq_len, window)
            total += per_token * block_size * -(-kept // block_size)
        return total


def rank_demands(
    model: ModelConfig, parallel: Parallel, kv_format: KvFormat, params: CapacityParams
) -> tuple[StageDemand, ...]:
    """Return the needs of every distinct stage."""
    if params.flat:
        return (_flat_demand(model, parallel, params),)
    demands = (_demand(stage, parallel, kv_format, params) for stage in stage_models(model, parallel.pp_size))
    return tuple(dict.fromkeys(demands))


def _demand(stage: ModelConfig, parallel: Parallel, kv_format: KvFormat, params: CapacityParams) -> StageDemand:
    tp = parallel.tp_size
    caches = tuple((g.num_layers * g.local_bytes_per_token(kv_format, tp), g.window) for g in stage.kv_layout.groups)
    fixed = _fixed_activation_bytes(stage, parallel, params)
    return StageDemand(
        weight_bytes=weight_bytes_per_rank(stage, tp, 1, parallel.ep_size, parallel.dp_size),
        activation_bytes=activation_bytes(stage, parallel, params.max_batched_tokens, params.max_num_seqs)
        if fixed is None
        else fixed,
        token_bytes=sum(per_token for per_token, _ in caches),
        caches=caches,
        state_bytes=stage.kv_layout.state_bytes / tp,
    )


def _flat_demand(model: ModelConfig, parallel: Parallel, params: CapacityParams) -> StageDemand:
    """Return the needs by the flat convention; a pipeline divides them evenly."""
    share = 1 / (parallel.tp_size * parallel.pp_size)
    token_bytes = flat_kv_bytes_per_token(model, parallel.tp_size) / parallel.pp_size
    fixed = _fixed_activation_bytes(model, parallel, params)
    return StageDemand(
        weight_bytes=flat_weight_bytes(model) * share,
        activation_bytes=fixed
        if fixed is not None
        else activation_bytes(model, parallel, params.max_batched_tokens, params.max_num_seqs),
        token_bytes=token_bytes,
        caches=((token_bytes, None),),
        state_bytes=0.0,
    )


def _fixed_activation_bytes(model: ModelConfig, parallel: Parallel, params: CapacityParams) -> float | None:
    fixed = params.activation_bytes
    if model.num_experts > 1 and params.moe_activation_bytes is not None:
        fixed = params.moe_activation_bytes
    if fixed is None:
        return None
    return fixed / parallel.tp_size if params.activation_shared else fixed
