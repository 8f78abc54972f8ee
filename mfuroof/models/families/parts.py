"""What every family reader needs: the shape it returns, and grouping equal layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfuroof.models.fields import Fields
from mfuroof.models.specs import AttentionSpec, LayerSpec, MlpSpec

__all__ = ["Architecture", "Layer", "group_layers"]

Layer = tuple[AttentionSpec, MlpSpec, int]
"""Attention, MLP and number of norm parameters of one layer."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a family reader returns: one entry per layer, and what is outside the layers."""

    layers: tuple[LayerSpec, ...]
    hidden_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    tie_word_embeddings: bool
    extra_params: int
    exact: bool = True


def group_layers(layers: Sequence[Layer]) -> tuple[LayerSpec, ...]:
    """Return one `LayerSpec` per distinct layer, in the order of first occurrence."""
    where: dict[Layer, list[int]] = {}
    for index, layer in enumerate(layers):
        where.setdefault(layer, []).append(index)
    return tuple(LayerSpec(len(at), a, m, tuple(at), norms) for (a, m, norms), at in where.items())


def build(
    f: Fields,
    layers: Sequence[Layer],
    *,
    hidden_size: int,
    extra_params: int,
    heads: tuple[int, int, int],
    tie_default: bool = False,
    exact: bool = True,
) -> Architecture:
    """Read what is common to every family and assemble the architecture; ``heads`` = (query, KV, width)."""
    return Architecture(
        layers=group_layers(layers),
        hidden_size=hidden_size,
        vocab_size=f.integer("vocab_size", 0 if f.lenient else None, low=0 if f.lenient else 1),
        num_attention_heads=heads[0],
        num_key_value_heads=heads[1],
        head_dim=heads[2],
        intermediate_size=f.integer("intermediate_size", 0),
        tie_word_embeddings=f.flag("tie_word_embeddings", tie_default),
        extra_params=extra_params,
        exact=exact,
    )
