"""FLOPs and bytes of a step by component, in closed form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.costs.groups import groups_of
from mfuroof.ops.attention import AttentionLayers
from mfuroof.ops.transformer import ForwardPass

__all__ = ["WorkModel", "causal_pairs"]


def causal_pairs(context: F64, new_tokens: F64, window: float) -> F64:
    """Return the query-key pairs that ``new_tokens`` tokens behind ``context`` cached ones attend to.

    The continuous form F^2/2 - P^2/2 (no half diagonal), which chunks of a prompt add up to exactly.
    """

    def area(length: F64) -> F64:
        reach = np.minimum(length, window)
        return reach * (length - 0.5 * reach)

    return area(context + new_tokens) - area(context)


@dataclass(frozen=True, eq=False)
class WorkModel:
    """Work of one GPU as linear functions of counts; holds for any batch form."""

    components: tuple[str, ...]
    run: ForwardPass

    @classmethod
    def of(cls, run: ForwardPass, components: tuple[str, ...]) -> WorkModel:
        """Return the work of a forward pass."""
        return cls(components, run)

    def flops(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return useful floating-point operations by component. [FLOP]"""
        g = groups_of(batch)
        out = {name: np.zeros(len(batch)) for name in self.components}
        for axis, counts in (("tokens", g.tokens), ("sequences", g.sequences)):
            for op in self.run.ops:
                if op.axis == axis:
                    out[op.name] += op.count * op.flops_per_count * counts
        for layers in self.run.attention:
            window, shape = _window(layers), layers.shape
            seen = g.decode_sum(np.minimum(g.decode_kv_len, window))
            out["attention_decode"] += layers.count * shape.decode_flops_per_pair * seen
            pairs = g.prefill_sum(causal_pairs(g.prefill_context, g.prefill_new_tokens, window))
            out["attention_prefill"] += layers.count * shape.prefill_flops_per_pair * pairs
        return out

    def bytes_moved(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return HBM traffic by component: weights once a step, the KV cache per request. [bytes]"""
        g = groups_of(batch)
        out = {name: np.zeros(len(batch)) for name in self.components}
        for axis, counts in (("tokens", g.tokens), ("sequences", g.sequences)):
            for op in self.run.ops:
                if op.axis == axis:
                    out[op.name] += op.count * op.bytes_at(counts)
        for layers in self.run.attention:
            moved = layers.shape.bytes_moved
            out["attention_decode"] += layers.count * g.decode_sum(moved(g.decode_kv_len - 1.0, 1.0))
            read = g.prefill_sum(moved(g.prefill_context, g.prefill_new_tokens))
            out["attention_prefill"] += layers.count * read
        return out


def _window(layers: AttentionLayers) -> float:
    return float(layers.shape.window or np.inf)


