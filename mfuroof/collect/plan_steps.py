"""Whole steps that are timed to judge predictions by: decode, prefill and mixed ones, on and off the tables' grids."""

from __future__ import annotations

from collections.abc import Iterator

from mfuroof.collect.point import Point
from mfuroof.models import ModelConfig, get_model

__all__ = ["known_model", "kv_room_tokens", "step_points"]

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (511, 767, 1023, 1535, 2047, 3071, 4095, 6143, 8191, 12287, 16383, 24575, 32767)
ODD = ((3, 700), (6, 3000), (12, 1500), (24, 6000), (48, 900), (96, 2500), (160, 1200), (200, 600), (20, 12000))
"""Decode steps between the grid points of any table."""
PROMPTS = tuple((b, n, 0) for b in (1, 2, 4) for n in (64, 128, 300, 512, 1024, 1500, 2048, 4096, 8192))
CHUNKS = tuple((1, n, c) for n in (128, 512, 1000, 2048) for c in (1024, 4096, 10000, 30000))
MIXED = tuple(
    (batch, context, new, prefix)
    for batch in (4, 16, 50, 128, 250)
    for context in (500, 2000, 8000)
    for new, prefix in ((256, 0), (512, 2048), (1024, 0), (2048, 0), (2048, 6000))
)
WEIGHT_SHARE = 0.85
"""Of the memory that weights and caches may take together."""


def known_model(name: str) -> ModelConfig:
    """Return the model of a step point: a built-in one, or the tiny one of self-tests."""
    if name == "tiny":
        return ModelConfig(
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            intermediate_size=128,
            vocab_size=256,
        )
    return get_model(name)


def kv_room_tokens(model: ModelConfig, memory_bytes: float) -> int:
    """Return the tokens whose caches fit beside the weights. [tokens]"""
    return int(max(WEIGHT_SHARE * memory_bytes - model.weight_bytes, 0.0) / model.kv_bytes_per_token)


def step_points(name: str, variant: str, memory_bytes: float) -> Iterator[Point]:
    """Yield steps of a model that fit the memory, all of level 1: some of each kind before more of any.

    Of the tiny model, three.
    """
    room = kv_room_tokens(known_model(name), memory_bytes)
    decode = [(b, c, 0, 0, 0) for c in CONTEXTS for b in BATCHES]
    decode += [(b, c, 0, 0, 0) for b, c in ODD]
    prefill = [(0, 0, b, n, c) for b, n, c in (*PROMPTS, *CHUNKS)]
    mixed = [(b, c, 1, n, p) for b, c, n, p in MIXED]
    if name == "tiny":
        decode, prefill, mixed = [(2, 15, 0, 0, 0)], [(0, 0, 1, 16, 8)], [(2, 15, 1, 8, 0)]
    turns = [((i + 0.5) / len(kind), step) for kind in (decode, prefill, mixed) for i, step in enumerate(kind)]
    for _, (batch, context, prompts, new, prefix) in sorted(turns):
        if batch * (context + 1) + prompts * (prefix + new) <= room:
            yield Point.of(
                "steps",
                variant,
                1,
                model=name,
                decode_batch=batch,
                decode_context=context,
                prefill_batch=prompts,
                prefill_new_tokens=new,
                prefill_context=prefix,
            )
