"""`Point`: one thing to measure, and the families that points belong to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from mfuroof.tables.schema import FAMILIES as TABLES

__all__ = ["FAMILIES", "TABLE_FAMILIES", "Point", "columns_of"]

_GQA = ("attn_dtype", "kv_dtype", "num_attention_heads", "num_key_value_heads", "head_dim", "sliding_window")
_OWN: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "ceiling": ("op", "dtype", "size"),
        "launch": ("op",),
        "elementwise": ("op", "width", "tokens"),
        "attn_extend": (*_GQA, "batch_size", "context_len", "new_tokens"),
        "steps": (
            "model",
            "decode_batch",
            "decode_context",
            "prefill_batch",
            "prefill_new_tokens",
            "prefill_context",
        ),
    }
)
TABLE_FAMILIES = ("gemm", "attn_prefill", "attn_decode", "moe", "comm")
"""Families that become kernel tables: the shape of a point is the key of a row."""

FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "ceiling": "what bounds every kernel: memory copies and large matrix products",
        "launch": "what starting a kernel costs, one by one and within a CUDA graph",
        "gemm": "matrix products of weights, 16 bit and FP8",
        "attn_prefill": "causal attention of whole prompts",
        "attn_decode": "attention of one new token a request over its cache",
        "attn_extend": "causal attention of new tokens behind a cached prefix",
        "moe": "both products of routed experts, load balanced and skewed",
        "elementwise": "norms, activations, additions, gathers",
        "comm": "collectives between several devices",
        "steps": "whole steps of a decoder with random weights, to judge predictions by",
    }
)
"""Everything that can be collected, in the order in which it is reported."""


def columns_of(family: str) -> tuple[str, ...]:
    """Return the names that the shape of a point of ``family`` has, in order."""
    return _OWN[family] if family in _OWN else TABLES[family].keys


@dataclass(frozen=True)
class Point:
    """One shape of one kernel.

    Attributes
    ----------
    family
        One of `FAMILIES`.
    variant
        Which kernel: a backend or a way of scaling; several variants of one shape compete.
    shape
        Values of `columns_of` the family.
    level
        When it is measured: 0 first. No part of its identity.
    """

    family: str
    variant: str
    shape: tuple[int | str, ...]
    level: int = field(default=0, compare=False)

    @classmethod
    def of(cls, family: str, variant: str, level: int, **shape: int | str) -> Point:
        """Make a point from named values."""
        return cls(family, variant, tuple(shape[name] for name in columns_of(family)), level)

    @property
    def keys(self) -> dict[str, int | str]:
        """Shape by name."""
        return dict(zip(columns_of(self.family), self.shape, strict=True))

    @property
    def name(self) -> str:
        """Text that identifies the point in a journal."""
        return f"{self.family}/{self.variant}/" + ",".join(str(value) for value in self.shape)

    def __str__(self) -> str:
        return f"{self.family} {self.variant}: " + ", ".join(f"{k} {v}" for k, v in self.keys.items())
