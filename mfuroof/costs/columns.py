"""The columns of a batch in the order the kernels take them."""

from __future__ import annotations

from mfuroof._types import I64
from mfuroof.batch import RaggedColumns, UniformColumns

__all__ = ["ragged_columns", "uniform_columns"]


def uniform_columns(c: UniformColumns) -> tuple[I64, I64, I64, I64, I64, I64]:
    """Return decode batch and context, prefill batch, new tokens and context, and the emission flags."""
    return c.decode_batch, c.decode_context, c.prefill_batch, c.prefill_new_tokens, c.prefill_context, c.emits


def ragged_columns(c: RaggedColumns) -> tuple[I64, I64, I64, I64, I64, I64, I64, I64]:
    """Return decode offsets, contexts and counts, then prefill offsets, contexts, new tokens, counts and emissions."""
    return (
        c.decode_offsets,
        c.decode_contexts,
        c.decode_counts,
        c.prefill_offsets,
        c.prefill_contexts,
        c.prefill_new_tokens,
        c.prefill_counts,
        c.prefill_emits,
    )
