"""Points of attention: decode over a cache, whole prompts, and new tokens behind a prefix."""

from __future__ import annotations

from collections.abc import Iterator

from mfuroof.collect.grids import Grids, up_to
from mfuroof.collect.point import Point
from mfuroof.collect.shapes import Heads, ModelShapes

__all__ = ["decode_points", "extend_points", "prefill_points"]

MAX_SHARE = 0.4
"""Of the memory, for the cache of one point."""
MAX_DECODE_TOKENS = 2**21
"""Batch x length of decode attention at 8 KV heads or fewer. [tokens]"""
EXTEND_TOKENS = (16, 256, 2048)
"""New tokens behind a prefix. [tokens]"""


def decode_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield decode attention: rows of one batch size over the cache length, batch 1 first and no batch left out."""
    for heads, own in _heads(grids, shapes, level):
        for batch in up_to(grids.batches, own):
            for kv_len in up_to(grids.kv_lens, own):
                tokens = batch * kv_len * max(heads[1] / 8, 1)
                if tokens <= MAX_DECODE_TOKENS and _cache_bytes(heads, batch * kv_len) <= MAX_SHARE * memory:
                    yield Point.of("attn_decode", variant, level, **_gqa(heads), batch_size=batch, kv_len=kv_len)


def prefill_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield prefill attention with an empty cache."""
    for heads, own in _heads(grids, shapes, level):
        for batch in up_to(grids.prompt_batches, own):
            for new in up_to(grids.prompts, own):
                if batch * new <= grids.max_prompt_tokens and _cache_bytes(heads, batch * new) <= MAX_SHARE * memory:
                    yield Point.of("attn_prefill", variant, level, **_gqa(heads), batch_size=batch, new_tokens=new)


def extend_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield attention of one request's new tokens behind a prefix that is cached."""
    for heads, own in _heads(grids, shapes, level):
        for context in up_to(grids.prefixes, own):
            for new in EXTEND_TOKENS:
                yield Point.of(
                    "attn_extend",
                    variant,
                    level,
                    **_gqa(heads),
                    batch_size=1,
                    context_len=context,
                    new_tokens=new,
                )


def _heads(grids: Grids, shapes: ModelShapes, level: int) -> Iterator[tuple[Heads, int]]:
    """Yield the attention shapes of a level, each with the level of the axes it is measured on.

    A shape that came with an earlier level is measured on this level's axes; a new one begins with the coarse axes.
    The models' own shapes count as of level 1.
    """
    known: dict[Heads, int] = {}
    for first, part in enumerate(grids.heads, 1):
        for heads in (*part, *(shapes.heads if first == 1 else ())):
            known.setdefault(heads, first)
    for heads, first in known.items():
        if 1 <= first <= level:
            yield heads, level - first + 1


def _gqa(heads: Heads) -> dict[str, int | str]:
    names = ("num_attention_heads", "num_key_value_heads", "head_dim")
    return {"attn_dtype": "bf16", "kv_dtype": "bf16", **dict(zip(names, heads, strict=True)), "sliding_window": 0}


def _cache_bytes(heads: Heads, tokens: int) -> float:
    """Keys and values, and the queries where every token has one. [bytes]"""
    query_heads, kv_heads, dim = heads
    return 2.0 * tokens * dim * (2 * kv_heads + query_heads * (tokens <= MAX_DECODE_TOKENS // 16))
