"""The requests of a batch as flat groups, whatever its form, and sums of their properties by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.batch import RaggedColumns, StepBatch, UniformColumns

__all__ = ["Groups", "groups_of"]


@dataclass(frozen=True, eq=False)
class Groups:
    """Like requests of each step: float64 arrays with one entry a group, and the step each belongs to.

    Groups of prefill requests without new tokens have a count of 0: they run nothing.
    """

    num_steps: int
    decode_step: I64
    decode_count: F64
    decode_kv_len: F64
    prefill_step: I64
    prefill_count: F64
    prefill_context: F64
    prefill_new_tokens: F64
    prefill_emits: F64

    def decode_sum(self, values: F64) -> F64:
        """Sum a value per decode request over the requests of each step."""
        return np.bincount(self.decode_step, self.decode_count * values, self.num_steps).astype(np.float64)

    def prefill_sum(self, values: F64) -> F64:
        """Sum a value per prefill request over the requests of each step."""
        return np.bincount(self.prefill_step, self.prefill_count * values, self.num_steps).astype(np.float64)

    @property
    def decode_batch(self) -> F64:
        """Decode requests of each step (n,)."""
        return self.decode_sum(np.ones(self.decode_step.size))

    @property
    def tokens(self) -> F64:
        """Tokens each step computes (n,). [tokens]"""
        return self.decode_batch + self.prefill_sum(self.prefill_new_tokens)

    @property
    def sequences(self) -> F64:
        """Requests of each step that emit a token (n,)."""
        return self.decode_batch + self.prefill_sum(self.prefill_emits)


def groups_of(batch: StepBatch) -> Groups:
    """Return the request groups of a batch of either form."""
    n, c = len(batch), batch.columns
    if isinstance(c, UniformColumns):
        steps = np.arange(n)

        def wide(column: I64) -> F64:
            return np.broadcast_to(column, n).astype(np.float64)

        new = wide(c.prefill_new_tokens)
        return Groups(
            n,
            steps,
            wide(c.decode_batch),
            wide(c.decode_context) + 1.0,
            steps,
            np.where(new > 0, wide(c.prefill_batch), 0.0),
            wide(c.prefill_context),
            new,
            wide(c.emits),
        )
    assert isinstance(c, RaggedColumns)
    decode, prefill = _span(c.decode_offsets), _span(c.prefill_offsets)

    def full(column: I64, span: slice) -> F64:
        size = span.stop - span.start
        whole = column[span] if column.size == span.stop or column.size > 1 else column
        return np.broadcast_to(whole, size).astype(np.float64)

    return Groups(
        n,
        np.repeat(np.arange(n), np.diff(c.decode_offsets)),
        full(c.decode_counts, decode),
        c.decode_contexts[decode].astype(np.float64) + 1.0,
        np.repeat(np.arange(n), np.diff(c.prefill_offsets)),
        np.where(c.prefill_new_tokens[prefill] > 0, full(c.prefill_counts, prefill), 0.0),
        c.prefill_contexts[prefill].astype(np.float64),
        c.prefill_new_tokens[prefill].astype(np.float64),
        full(c.prefill_emits, prefill),
    )


def _span(offsets: I64) -> slice:
    return slice(int(offsets[0]), int(offsets[-1]))
