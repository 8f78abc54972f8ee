"""Small kernels beside the measured ones: rotary embedding, KV write, norms of queries and keys, routing.

Each is a few microseconds, but a step runs them once a layer. No table holds them; they are priced by their bytes and
a launch, as all elementwise kernels are. How many an engine launches is part of its profile.
"""

from __future__ import annotations

from collections.abc import Iterator

from mfuroof.engines import EngineProfile
from mfuroof.models import AttentionSpec, LayerSpec
from mfuroof.ops.curves import Op
from mfuroof.ops.layer import ACTIVATION_BYTES, Builder

__all__ = ["side_kernels"]

SCORE_BYTES = 4
"""Of one router score: 32-bit. [bytes]"""


def side_kernels(build: Builder, layer: LayerSpec, profile: EngineProfile) -> Iterator[Op]:
    """Yield the small kernels of a layer."""
    a, m, tp = layer.attention, layer.mlp, build.parallel.tp_size
    if a.kind in ("gqa", "mla", "compressed"):
        vectors = float(ACTIVATION_BYTES * _local_width(a, tp))
        yield build.elementwise("rotary_kv_write", profile.rotary_kv_kernels * layer.count, 2.0 * vectors)
        if a.qk_norm_params:
            yield build.elementwise("qk_norm", profile.qk_norm_kernels * layer.count, 2.0 * vectors)
            if tp > 1 and _whole_width(a):  # the mean square runs over all heads, on every rank's part of them
                links = build.collective("all_reduce", tp, 1.0)
                yield Op("all_reduce", "tokens", float(layer.count), links, resource="comm")
    if m.kind == "moe":
        scores = float(SCORE_BYTES * m.num_experts)
        yield build.elementwise("routing", profile.routing_kernels * layer.count, 2.0 * scores)


def _local_width(a: AttentionSpec, tp: int) -> int:
    """Width of the queries and keys of one rank."""
    if a.mla is not None:
        return (a.num_attention_heads // tp) * a.mla.qk_rope_head_dim + a.mla.cached_elements
    return (a.num_attention_heads // tp + max(1, a.num_key_value_heads // tp)) * a.head_dim


def _whole_width(a: AttentionSpec) -> bool:
    """Say whether queries and keys are normalised over all heads together (MiniMax), not head by head."""
    return a.qk_norm_params == (a.num_attention_heads + a.num_key_value_heads) * a.head_dim
