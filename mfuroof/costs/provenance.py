"""Where the numbers of a step come from: the worst source code of its lookups, and the distance to data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.batch import StepBatch
from mfuroof.core.provenance import raise_by_lattice
from mfuroof.core.sources import Source
from mfuroof.costs.groups import groups_of
from mfuroof.ops.curves import MAX_TOKENS, Op
from mfuroof.ops.transformer import ForwardPass

__all__ = ["SourceMap"]

_SAFE = np.uint8(Source.EXACT)


@dataclass(frozen=True, eq=False)
class SourceMap:
    """Source codes of every count and every lattice point of a bound model."""

    ops: tuple[Op, ...]
    decode: tuple[U8, ...]
    prefill: tuple[U8, ...]

    @classmethod
    def of(cls, run: ForwardPass) -> SourceMap:
        """Return the map of a forward pass."""
        return cls(
            tuple(op for op in run.ops if op.curve.measured),
            tuple(layers.decode.source for layers in run.attention),
            tuple(layers.prefill.source for layers in run.attention),
        )

    def fill(self, batch: StepBatch, source: U8, distance: F64) -> None:
        """Fill the worst code and the largest distance of each step; an empty step is exact."""
        g = groups_of(batch)
        source[:] = _SAFE
        distance[:] = 0.0
        for axis, counts in (("tokens", g.tokens), ("sequences", g.sequences)):
            codes, far = self._counts[axis]
            at = np.minimum(counts, MAX_TOKENS + 1).astype(np.int64)
            np.maximum(source, codes[at], out=source)
            np.maximum(distance, far[at] + np.log2(np.maximum(counts / MAX_TOKENS, 1.0)), out=distance)
        decoding = g.decode_batch[g.decode_step]
        for codes, away in zip(self.decode, self._away["decode"], strict=True):
            reads = decoding, g.decode_kv_len, g.decode_count, g.decode_step
            raise_by_lattice(codes, away, *reads, source, distance)
        length = g.prefill_context + g.prefill_new_tokens
        like = g.prefill_sum(g.prefill_new_tokens)[g.prefill_step] / np.maximum(g.prefill_new_tokens, 1.0)
        for codes, away in zip(self.prefill, self._away["prefill"], strict=True):
            raise_by_lattice(codes, away, like, length, g.prefill_count, g.prefill_step, source, distance)

    @cached_property
    def _away(self) -> dict[str, tuple[F64, ...]]:
        """Distance of each lattice point to the nearest measured one."""
        return {
            "decode": tuple(_octaves_to_measured(codes) for codes in self.decode),
            "prefill": tuple(_octaves_to_measured(codes) for codes in self.prefill),
        }

    @cached_property
    def _counts(self) -> dict[str, tuple[U8, F64]]:
        """Code and distance of every count up to the last breakpoint, and of what lies beyond it."""
        out: dict[str, tuple[U8, F64]] = {}
        counts = np.arange(1.0, MAX_TOKENS + 2.0)
        for axis in ("tokens", "sequences"):
            code, far = np.zeros(MAX_TOKENS + 2, np.uint8), np.zeros(MAX_TOKENS + 2)
            for op in self.ops:
                if op.axis == axis:
                    np.maximum(code[1:], op.curve.source_at(counts), out=code[1:])
                    np.maximum(far[1:], op.curve.distance_at(counts), out=far[1:])
            out[axis] = code, far
        return out


def _octaves_to_measured(grid: U8) -> F64:
    """Distance of each lattice point to the nearest measured one; 0 everywhere if nothing is measured."""
    measured = np.argwhere(grid == Source.EXACT)
    if measured.size == 0:
        return np.zeros(grid.shape)
    points = np.argwhere(np.ones(grid.shape, bool))
    gap = np.linalg.norm((points[:, None, :] - measured[None, :, :]).astype(np.float64), axis=2)
    return gap.min(axis=1).reshape(grid.shape)
