"""The axes that points are laid on, level by level: a coarse grid over everything first, refinement later.

Attention grids stand on powers of two and grow from batch 1 without a gap, because the lattices of an evaluator are
read that way (`mfuroof.ops.lattice`); values of the GEMM axes are those of the embedded tables, so that both can be
compared point by point.
"""

from __future__ import annotations

from dataclasses import dataclass

from mfuroof.collect.shapes import ExpertsKey, Heads

__all__ = ["CPU", "GPU", "Axis", "Grids", "up_to"]

Axis = tuple[tuple[int, ...], ...]
"""What each level adds, level 1 first."""


def up_to(axis: Axis, level: int) -> tuple[int, ...]:
    """Return the values of all levels up to ``level``, ascending."""
    return tuple(sorted(value for part in axis[:level] for value in part))


@dataclass(frozen=True)
class Grids:
    """Axes of a collection.

    Attributes
    ----------
    tokens
        Rows of a GEMM, and tokens of experts and elementwise kernels. [tokens]
    sites
        Side lengths of the canonical (n, k) grid of weights. [features]
    heads
        Attention shapes of the canonical set: levels 1, 2, 3.
    batches, kv_lens
        Decode attention. [sequences, tokens]
    prompt_batches, prompts, prefixes
        Prefill attention: prompts at once, their lengths, and what is cached before new tokens. [sequences, tokens]
    max_prompt_tokens
        Frontier of batch x length in prefill. [tokens]
    experts
        Routed experts of the canonical set.
    widths
        Of elementwise kernels. [elements]
    copies, products
        Ceilings: bytes of a copy, and side length of a square matrix product.
    messages
        Elements of a collective.
    """

    tokens: Axis
    sites: Axis
    heads: tuple[tuple[Heads, ...], ...]
    batches: Axis
    kv_lens: Axis
    prompt_batches: Axis
    prompts: Axis
    prefixes: Axis
    max_prompt_tokens: int
    experts: tuple[tuple[ExpertsKey, ...], ...]
    widths: Axis
    copies: tuple[int, ...]
    products: tuple[int, ...]
    messages: Axis


def _octaves(first: int, last: int, step: int = 1) -> tuple[int, ...]:
    return tuple(2**i for i in range(first, last + 1, step))


GPU = Grids(
    tokens=(
        (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384),
        (2, 4, 24, 48, 96, 192, 384, 768, 1536, 3072, 6144, 12288),
        (*(3, 5, 6, 7, *range(9, 16), 17, 33, 49, 65, 80, 81, 97, 112, 113, 129, 160, 161, 193, 224, 225, 257),
         *(513, 640, 769, 896, 1025, 1280, 1792, 2560, 3584, 5120, 7168, 10240, 14336)),
    ),
    sites=((512, 1024, 2048, 4096, 8192, 16384), (256, 1536, 3072, 6144, 12288), (128, 768, 2560, 5120, 7168, 10240)),
    heads=(
        ((32, 8, 128),),
        ((8, 1, 128), (16, 2, 128), (64, 8, 128), (32, 32, 128), (64, 8, 64), (16, 8, 256)),
        ((4, 1, 128), (8, 8, 128), (8, 2, 128), (16, 4, 128), (28, 4, 128), (40, 8, 128), (64, 4, 128), (96, 8, 128),
         (8, 1, 64), (32, 8, 64), (8, 4, 256), (16, 1, 256)),
    ),
    batches=(_octaves(0, 8), _octaves(9, 11)),
    kv_lens=((128, 1024, 4096, 16384, 65536), (16, 64, 256, 512, 2048, 8192, 32768, 131072), (2, 4, 8, 32)),
    prompt_batches=(_octaves(0, 4), _octaves(5, 8)),
    prompts=((1, 128, 512, 2048, 8192), (16, 32, 64, 256, 1024, 4096, 16384), (1536, 3072, 6144, 12288)),
    prefixes=((2048, 16384), (512, 8192, 32768), (1024, 4096)),
    max_prompt_tokens=131_072,
    experts=(
        ((128, 8, 2048, 768, 1, 1), (8, 2, 4096, 14336, 1, 1)),
        ((128, 8, 4096, 1536, 1, 8), (8, 2, 4096, 14336, 4, 1), (32, 4, 2880, 2880, 1, 1), (128, 8, 2048, 768, 4, 1)),
        ((256, 8, 7168, 2048, 1, 32), (16, 1, 5120, 8192, 1, 4), (64, 8, 4096, 1536, 1, 1), (128, 4, 2880, 2880, 1, 1)),
    ),
    widths=((4096,), (8192, 2048), (1024, 5120, 14336)),
    copies=(2**26, 2**28, 2**30),
    products=(4096, 8192),
    messages=(_octaves(10, 26, 4), _octaves(7, 28, 1)),
)
"""Grids for a data-centre GPU: level 1 in some minutes, all three in hours."""

CPU = Grids(
    tokens=((1, 2, 4, 8, 16, 32, 64),),
    sites=((64, 128, 256),),
    heads=(((4, 2, 32),),),
    batches=((1, 2, 4, 8),),
    kv_lens=((16, 64, 256), (32, 128)),
    prompt_batches=((1, 2),),
    prompts=((1, 16, 64, 256), (32, 128)),
    prefixes=((64,),),
    max_prompt_tokens=512,
    experts=(((4, 2, 64, 64, 1, 1),),),
    widths=((256,),),
    copies=(2**24, 2**25),
    products=(256, 512),
    messages=((2**10, 2**16),),
)
"""Grids of the tests and of a first try: seconds on any processor."""
