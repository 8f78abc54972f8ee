"""Counts of a step that its work and traffic are linear in, and the two as components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.costs.groups import Groups, groups_of
from mfuroof.costs.workload import Reach, Workload

__all__ = ["StepCounts"]


@dataclass(frozen=True, eq=False)
class StepCounts:
    """Sums over the requests of each step."""

    groups: Groups

    @classmethod
    def of(cls, batch: StepBatch) -> StepCounts:
        """Return the counts of a batch of either form."""
        return cls(groups_of(batch))

    def decode_seen(self, reach: Reach) -> F64:
        """Return the context tokens that decode requests attend to (n,)."""
        cap = np.inf if reach.window is None else reach.window - 1.0
        return self.groups.decode_sum(np.minimum(self.groups.decode_kv_len - 1.0, cap))

    def prefill_seen(self, reach: Reach) -> F64:
        """Return the context tokens that the first new token of each prefill request attends to (n,)."""
        cap = np.inf if reach.window is None else reach.window - 1.0
        return self.groups.prefill_sum(np.minimum(self.groups.prefill_context, cap))

    def prefill_pairs(self, reach: Reach) -> F64:
        """Return the query-key pairs of prefill requests, each token's own included (n,)."""
        g = self.groups
        cap = 2.0**60 if reach.window is None else reach.window - 1.0
        rising = np.clip(cap + 1.0 - g.prefill_context, 0.0, g.prefill_new_tokens)
        pairs = rising * (g.prefill_context + 0.5 * (rising + 1.0)) + (g.prefill_new_tokens - rising) * (cap + 1.0)
        return g.prefill_sum(pairs)

    def flops(self, work: Workload) -> Mapping[str, F64]:
        """Return floating-point operations by component, each (n,). [FLOP]"""
        g = self.groups
        gemm, attention = work.token.flops * g.tokens, np.zeros(g.num_steps)
        for reach in work.reaches:
            attention += reach.decode_pair.flops * (self.decode_seen(reach) + g.decode_batch)
            attention += reach.prefill_pair.flops * self.prefill_pairs(reach)
            gemm += reach.prefill_context.flops * self.prefill_seen(reach)
        return {"gemm": gemm, "attention": attention, "lm_head": work.emission.flops * g.sequences}

    def bytes_moved(self, work: Workload) -> Mapping[str, F64]:
        """Return HBM traffic by component, each (n,). [bytes]"""
        g = self.groups
        table, tokens = work.weight_bytes(), g.tokens
        requests = g.decode_batch + g.prefill_sum(np.ones(g.prefill_step.size))
        weights = np.where(requests > 0, table[np.minimum(tokens, table.size - 1).astype(np.int64)], 0.0)
        weights += np.where(g.sequences > 0, work.head_bytes, 0.0)
        cache = work.kv_write_bytes * tokens + work.state_bytes * requests
        for reach in work.reaches:
            cache += reach.read_bytes * (self.decode_seen(reach) + self.prefill_seen(reach))
        return {"weights": weights, "kv_cache": cache, "activations": work.activation_bytes * tokens}
