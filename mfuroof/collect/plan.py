"""Which points are measured, in the order of their value.

Level 0 is what bounds everything: ceilings and launches. Level 1 is a coarse grid over all families with the most
common shapes; levels 2 and 3 refine it. Within a level the families take turns, so that a budget that ends early
leaves none of them empty; within a family a curve is finished before the next begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from mfuroof.collect.backend import Backend
from mfuroof.collect.grids import Grids
from mfuroof.collect.plan_attention import decode_points, extend_points, prefill_points
from mfuroof.collect.plan_gemm import elementwise_points, experts_points, gemm_points
from mfuroof.collect.plan_steps import step_points
from mfuroof.collect.point import FAMILIES, Point
from mfuroof.collect.shapes import ModelShapes

__all__ = ["DEFAULT_FAMILIES", "LEVELS", "plan"]

LEVELS = 3
DEFAULT_FAMILIES = tuple(name for name in FAMILIES if name != "steps")
"""What is collected unless something else is asked for; whole steps need a model's weights in memory."""

Maker = Callable[[Grids, ModelShapes, int, str, float, int], Iterator[Point]]
"""Grids, shapes of models, level, variant, memory of the device [bytes], its number -> points of that level."""


def plan(
    families: Sequence[str],
    backend: Backend,
    grids: Grids,
    shapes: Sequence[ModelShapes],
    levels: int = LEVELS,
    step_models: Sequence[str] = (),
) -> list[Point]:
    """Return the points of ``families``, the most valuable first, none twice.

    Parameters
    ----------
    families
        Of `mfuroof.collect.point.FAMILIES`.
    backend
        Device; tells the variants of each family, its memory and how many of it there are.
    grids
        Canonical axes.
    shapes
        What models add at level 1, at level 2 and so on; the last one goes on.
    levels
        Last level, 0 to `LEVELS`.
    step_models
        Models whose whole steps are timed.
    """
    memory, count = backend.device.memory_bytes, backend.device.count
    points: dict[Point, None] = {}
    for level in range(levels + 1):
        own = shapes[min(max(level, 1), len(shapes)) - 1]
        lists = []
        for family in families:
            found: list[Point] = []
            for variant in backend.variants(family):
                if family == "steps":
                    found += [p for name in step_models for p in step_points(name, variant, memory) if p.level == level]
                else:
                    found += _MAKERS[family](grids, own, level, variant, memory, count)
            lists.append([p for p in dict.fromkeys(found) if p not in points])
        turns = [((i + 0.5) / len(found), n, p) for n, found in enumerate(lists) for i, p in enumerate(found)]
        points |= {p: None for _, _, p in sorted(turns, key=lambda turn: turn[:2])}
    return list(points)


def _ceilings(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    if level == 0:
        for size in grids.copies if variant == "copy" else grids.products:
            dtype = variant.removeprefix("matmul_") if variant != "copy" else ""
            yield Point.of("ceiling", variant, level, op=variant.partition("_")[0], dtype=dtype, size=size)


def _launches(
    grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int
) -> Iterator[Point]:
    if level == 0:
        yield Point.of("launch", variant, level, op=variant)


def _comm(grids: Grids, shapes: ModelShapes, level: int, variant: str, memory: float, count: int) -> Iterator[Point]:
    if not 1 <= level <= len(grids.messages):
        return
    backend, _, dtype = variant.partition("_")
    ranks = [n for n in (2, 4, 8) if n <= count]
    for op in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        for num_gpus in ranks:
            for elements in grids.messages[level - 1]:
                shape = {"op": op, "backend": backend, "dtype": dtype, "num_gpus": num_gpus, "elements": elements}
                yield Point.of("comm", variant, level, **shape)


_MAKERS: Mapping[str, Maker] = MappingProxyType(
    {
        "ceiling": _ceilings,
        "launch": _launches,
        "gemm": gemm_points,
        "attn_prefill": prefill_points,
        "attn_decode": decode_points,
        "attn_extend": extend_points,
        "moe": experts_points,
        "elementwise": elementwise_points,
        "comm": _comm,
    }
)
