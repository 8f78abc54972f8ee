"""Points of matrix products, experts and elementwise kernels."""

from __future__ import annotations

from collections.abc import Iterator

from mfuroof.collect.grids import Grids, up_to
from mfuroof.collect.point import Point
from mfuroof.collect.shapes import ModelShapes

__all__ = ["elementwise_points", "experts_points", "gemm_points"]

DISTRIBUTIONS = ("balanced", "power_law_1.2")
"""How tokens fall on experts; see `mfuroof.collect.routing`."""
MAX_SHARE = 0.25
"""Of the memory, for the operands of one product."""
SECONDARY = ("fp8_row",)
"""Variants that begin one level later than their family."""


def gemm_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield the products of one variant: the models' own matrices, then the canonical grid, as fine as the level.

    FP8 begins with the larger half of the canonical grid: small products gain nothing from it.
    """
    fineness = level - (variant in SECONDARY)
    if fineness < 1:
        return
    dtype = variant.partition("_")[0]
    sides = up_to(grids.sites, fineness)
    if dtype != "bf16" and fineness == 1:
        sides = sides[len(sides) // 2 :]
    for n, k in dict.fromkeys((*shapes.sites, *((n, k) for n in sides for k in sides))):
        if dtype != "bf16" and (n % 16 or k % 16):
            continue  # FP8 kernels want multiples of 16
        for m in up_to(grids.tokens, fineness):
            if 2.0 * (n * k + m * (n + k)) <= MAX_SHARE * memory:
                yield Point.of("gemm", variant, level, dtype=dtype, n=n, k=k, m=m)


def experts_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield routed experts: the canonical set and the models' own."""
    if level < 1:
        return
    canonical = (key for part in grids.experts[:level] for key in part)
    for shape in dict.fromkeys((*(shapes.experts if level > 1 else ()), *canonical)):
        num, top_k, hidden, width, tp, ep = shape
        if 6.0 * num / ep * hidden * width / tp > 0.5 * memory:
            continue
        for distribution in DISTRIBUTIONS:
            for tokens in up_to(grids.tokens, min(level, 2)):
                yield Point.of(
                    "moe",
                    variant,
                    level,
                    dtype="bf16",
                    num_experts=num,
                    num_experts_per_tok=top_k,
                    hidden_size=hidden,
                    moe_intermediate_size=width,
                    tp_size=tp,
                    ep_size=ep,
                    distribution=distribution,
                    tokens=tokens,
                )


def elementwise_points(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    """Yield elementwise kernels over tokens, one variant an operation."""
    for width in up_to(grids.widths, level) if level else ():
        for tokens in up_to(grids.tokens, 1):
            yield Point.of("elementwise", variant, level, op=variant, width=width, tokens=tokens)
