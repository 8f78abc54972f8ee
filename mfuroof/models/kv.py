"""What one sequence keeps in GPU memory: cached elements per token by kind of layer, and fixed states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mfuroof.models.specs import AttentionSpec
from mfuroof.precision import FORMATS, KvFormat

if TYPE_CHECKING:
    from mfuroof.models.config import ModelConfig

__all__ = ["KvGroup", "KvLayout", "layout"]

PACKED_LATENT = 512 + 64
INDEX_SCALE_BLOCK = 128
INDEX_SCALE_BYTES = 4


@dataclass(frozen=True, slots=True)
class KvGroup:
    """Layers that cache alike.

    Parameters
    ----------
    num_layers, layer_indices
        How many layers, and which.
    elements
        Cached elements per cached token and layer, over all KV heads.
    kv_heads
        KV heads tensor parallelism can split; 1 where the cache is replicated on every rank (MLA latents).
    window
        Most tokens kept; None for all. [tokens]
    ratio
        Tokens that share one cached entry (DeepSeek-V4); 1 elsewhere.
    latent
        An MLA latent, which some formats pack in their own way.
    index_bytes
        Bytes of the indexer's key per token and layer: fp8 with one fp32 scale per 128, whatever the KV dtype. [bytes]
    """

    num_layers: int
    layer_indices: tuple[int, ...]
    elements: int
    kv_heads: int
    window: int | None = None
    ratio: int = 1
    latent: bool = False
    index_bytes: float = 0.0

    def bytes_per_token(self, fmt: KvFormat) -> float:
        """Return the bytes one token adds to ONE layer, on all ranks together. [bytes]"""
        own = self._packed(fmt) or self.elements * fmt.bytes_per_element
        return (own + self.index_bytes) / self.ratio

    def local_bytes_per_token(self, fmt: KvFormat, tp_size: int) -> float:
        """Return the bytes one token adds to ONE layer on the fullest of ``tp_size`` ranks. [bytes]"""
        share = 1.0 if self.latent else max(1, -(-self.kv_heads // tp_size)) / self.kv_heads
        own = self._packed(fmt) or self.elements * fmt.bytes_per_element * share
        return (own + self.index_bytes) / self.ratio

    def _packed(self, fmt: KvFormat) -> int | None:
        return fmt.mla_bytes_per_token if self.latent and self.elements == PACKED_LATENT else None


@dataclass(frozen=True, slots=True)
class KvLayout:
    """All groups of a model, and the bytes of states that do not grow with the sequence."""

    groups: tuple[KvGroup, ...]
    state_bytes: float

    def bytes_per_token(self, fmt: KvFormat) -> float:
        """Return the bytes one token adds over all layers and ranks, before any window caps it. [bytes]"""
        return sum(g.num_layers * g.bytes_per_token(fmt) for g in self.groups)


def layout(model: ModelConfig) -> KvLayout:
    """Return what one sequence of ``model`` keeps in memory.

    Recurrent states count 4 bytes an element (engines keep them in fp32), convolution windows the model's dtype.
    """
    groups: list[KvGroup] = []
    state = 0.0
    conv_bytes = FORMATS[model.dtype].bytes_per_weight
    for spec in model.layers:
        a = spec.attention
        groups += [_group(a, spec.count, spec.layer_indices, *part) for part in _cached(a)]
        recurrent = a.linear or a.mamba
        if recurrent:
            state += spec.count * (4.0 * recurrent.state_elements + conv_bytes * recurrent.conv_elements)
    return KvLayout(tuple(_merged(groups)), state)


def _cached(a: AttentionSpec) -> list[tuple[int, int | None, int, bool]]:
    """(elements, window, ratio, latent) of each cache of one layer."""
    if a.shared_kv or a.kind in ("none", "linear", "mamba"):
        return []
    if a.mla is not None:
        return [(a.mla.cached_elements, a.sliding_window, 1, True)]
    if a.compressed is not None:
        window = [(a.head_dim, a.sliding_window, 1, True)]
        return window + ([(a.head_dim, None, a.compressed.ratio, True)] if a.compressed.ratio else [])
    return [(a.num_key_value_heads * (a.head_dim + a.v_head_dim), a.sliding_window, 1, False)]


def _group(
    a: AttentionSpec, count: int, indices: tuple[int, ...], elements: int, window: int | None, ratio: int, latent: bool
) -> KvGroup:
    index = 0.0
    if a.indexer is not None and (a.compressed is None or ratio > 1):
        width = a.indexer.head_dim
        index = width + INDEX_SCALE_BYTES * width / INDEX_SCALE_BLOCK
    heads = 1 if latent else a.num_key_value_heads
    return KvGroup(count, indices, elements, heads, window, ratio, latent, index)


def _merged(groups: list[KvGroup]) -> list[KvGroup]:
    """Join groups that differ only in which layers they cover."""
    by_kind: dict[tuple[object, ...], list[KvGroup]] = {}
    for g in groups:
        by_kind.setdefault((g.elements, g.kv_heads, g.window, g.ratio, g.latent, g.index_bytes), []).append(g)
    merged = []
    for same in by_kind.values():
        indices = tuple(sorted(i for g in same for i in g.layer_indices))
        g = same[0]
        merged.append(
            KvGroup(len(indices), indices, g.elements, g.kv_heads, g.window, g.ratio, g.latent, g.index_bytes)
        )
    return merged
