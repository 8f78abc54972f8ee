"""Weight bytes of the fullest rank, module by module."""

from __future__ import annotations

from math import ceil

from mfuroof.models import ModelConfig
from mfuroof.models.modules import Module
from mfuroof.parallel import Parallel

__all__ = ["rank_weight_bytes"]


def rank_weight_bytes(model: ModelConfig, parallel: Parallel) -> float:
    """Return the bytes of the weights of one rank of one pipeline stage, scales and zero points included."""
    total = sum(_local(model.module_bytes(None, m), m, parallel) for m in model.top_modules)
    for spec in model.layers:
        total += spec.count * sum(_local(model.module_bytes(spec, m), m, parallel) for m in model.modules(spec))
    return total


def _local(size: float, module: Module, parallel: Parallel) -> float:
    tp = parallel.tp_size
    if module.shard == "none":
        return size
    if module.shard == "expert":
        return size / module.copies * ceil(module.copies / parallel.ep_size) / parallel.moe_tp_size
    if module.shard == "kv":
        return size * ceil(module.units / tp) / module.units
    return size / tp
