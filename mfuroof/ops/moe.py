"""Routed experts over tokens, from measured fused-MoE kernels.

A table holds, for several dozen (experts, top-k, hidden, width, tp, ep) shapes, the time of the busiest rank over the
tokens that enter the layer, under a few distributions of load. A measured shape is read as it is. Another one borrows
the utilisation (roofline time / measured time) of its nearest shapes at the same *tokens per expert*, which is what
sets the efficiency of a grouped GEMM, and turns it back into time with its own roofline; it is marked as substituted.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import pairwise

import numpy as np

from mfuroof._types import F64, freeze
from mfuroof.core.sources import Source
from mfuroof.ops.curves import MAX_TOKENS, Curve, without_spikes
from mfuroof.ops.rooflines import GemmRoofline

__all__ = ["ExpertsShape", "MoeTable", "distinct_experts"]

NEIGHBOURS = 3


@dataclass(frozen=True)
class ExpertsShape:
    """The routed experts of one layer and how they are spread.

    Attributes
    ----------
    num_experts, num_experts_per_tok, hidden_size, moe_intermediate_size
        Of the whole model.
    tp_size, ep_size
        Ranks one expert is cut over, and ranks the experts are spread over.
    """

    num_experts: int
    num_experts_per_tok: int
    hidden_size: int
    moe_intermediate_size: int
    tp_size: int
    ep_size: int

    def flops_per_token(self, num_matrices: int) -> float:
        """Work of one rank for one token that enters the layer, load in balance. [FLOP]"""
        width = self.moe_intermediate_size / self.tp_size
        return 2.0 * num_matrices * self.num_experts_per_tok / self.ep_size * self.hidden_size * width

    def roofline_time_s(self, tokens: F64, num_matrices: int, rate: GemmRoofline) -> F64:
        """Return the time no kernel can beat: the work at the peak rate, or the weights of the experts hit. [s]"""
        compute = tokens * self.flops_per_token(num_matrices) / rate.peak_flops_per_s
        moved = self.weight_bytes(tokens, num_matrices, rate.bytes_per_weight)
        return np.maximum(compute, moved / rate.hbm_bytes_per_s)

    def weight_bytes(self, tokens: F64, num_matrices: int, bytes_per_weight: float) -> F64:
        """Return the expert weights one rank reads for that many tokens, routed evenly. [bytes]"""
        hit = distinct_experts(tokens, self.num_experts, self.num_experts_per_tok) / self.ep_size
        per_expert = num_matrices * self.hidden_size * self.moe_intermediate_size / self.tp_size
        return hit * per_expert * bytes_per_weight


def distinct_experts(tokens: F64, num_experts: int, num_experts_per_tok: int) -> F64:
    """Return how many experts a batch is expected to touch: E (1 - (1 - k/E)^T), between k and min(k T, E)."""
    share = min(num_experts_per_tok / num_experts, 1.0)
    return num_experts * (1.0 - (1.0 - share) ** np.asarray(tokens, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class MoeTable:
    """Measured fused experts of one dtype and one load distribution.

    Attributes
    ----------
    shapes
        The measured shapes.
    tokens, latency_s
        For each of them the tokens measured, ascending, and the times. [tokens, s]
    measured_on, wanted, stand_in
        Rooflines of the GPU and dtype of the rows and of those that are asked for, and whether these are others; see
        `GemmTable`.
    despike
        Bring down single times that stand above one of more tokens.
    """

    shapes: tuple[ExpertsShape, ...]
    tokens: tuple[F64, ...]
    latency_s: tuple[F64, ...]
    measured_on: GemmRoofline
    wanted: GemmRoofline
    stand_in: bool = False
    despike: bool = False

    @classmethod
    def from_rows(
        cls,
        rows: dict[str, np.ndarray],
        measured_on: GemmRoofline,
        wanted: GemmRoofline,
        stand_in: bool = False,
        despike: bool = False,
    ) -> MoeTable:
        """Group the rows of a table (sorted by shape, then tokens) into curves."""
        keys = np.stack([rows[name] for name in ExpertsShape.__dataclass_fields__], axis=1)
        cuts = np.concatenate([[0], np.flatnonzero((np.diff(keys, axis=0) != 0).any(axis=1)) + 1, [keys.shape[0]]])
        shapes, tokens, latency = [], [], []
        for start, stop in pairwise(cuts):
            shapes.append(ExpertsShape(*(int(v) for v in keys[start])))
            tokens.append(rows["tokens"][start:stop].astype(np.float64))
            latency.append(rows["latency_s"][start:stop])
        return cls(tuple(shapes), tuple(tokens), tuple(latency), measured_on, wanted, stand_in, despike)

    def curve(self, shape: ExpertsShape, num_matrices: int, tokens_per_count: float) -> Curve:
        """Return the time over local tokens, each of which stands for ``tokens_per_count`` that enter the layer."""
        if shape in self.shapes:
            i = self.shapes.index(shape)
            return self._finish(self.tokens[i], self._times(i), shape, num_matrices, tokens_per_count, Source.EXACT)
        distance = self._distances(shape)
        near = np.argsort(distance, kind="stable")[:NEIGHBOURS]
        weight = 1.0 / np.maximum(distance[near], 1e-9) ** 2
        tokens = 2.0 ** np.arange(0, 16)
        utilisation = np.zeros(tokens.size)
        for i, w in zip(near, weight, strict=True):
            other = self.shapes[i]
            # The same load per expert; both are read where their tokens per expert agree, utilisation held below.
            alike = np.maximum(tokens * _load(shape) / _load(other), self.tokens[i][0])
            time = np.interp(alike, self.tokens[i], self._times(i))
            time = np.where(alike > self.tokens[i][-1], time * alike / self.tokens[i][-1], time)
            utilisation += w * other.roofline_time_s(alike, num_matrices, self.measured_on) / time
        time = shape.roofline_time_s(tokens, num_matrices, self.measured_on) * weight.sum() / utilisation
        return self._finish(tokens, time, shape, num_matrices, tokens_per_count, Source.SUBSTITUTED)

    def _times(self, i: int) -> F64:
        return without_spikes(self.latency_s[i]) if self.despike else self.latency_s[i]

    def _distances(self, shape: ExpertsShape) -> F64:
        mine = _features(shape)
        return np.array([np.linalg.norm(_features(other) - mine) for other in self.shapes])

    def _finish(
        self, tokens: F64, time: F64, shape: ExpertsShape, num_matrices: int, tokens_per_count: float, source: Source
    ) -> Curve:
        floor = shape.roofline_time_s(tokens, num_matrices, self.measured_on)
        time = np.maximum(time, floor)
        if self.stand_in:
            time = time * (shape.roofline_time_s(tokens, num_matrices, self.wanted) / floor)
            source = Source.SUBSTITUTED
        counts = tokens / tokens_per_count
        beyond = time[-1] / counts[-1]  # full GPU: time grows with the tokens
        inside = counts[(counts > 1.0) & (counts < MAX_TOKENS)]
        knots = np.concatenate([[1.0], inside, [float(MAX_TOKENS)]])
        values = np.interp(knots, counts, time) + beyond * np.maximum(knots - counts[-1], 0.0)
        codes = np.full(knots.size, source, np.uint8)
        measured = np.isin(knots, counts)
        codes[~measured] = np.maximum(codes[~measured], Source.INTERPOLATED)
        codes[knots > counts[-1]] = np.maximum(codes[knots > counts[-1]], Source.EXTRAPOLATED)
        return Curve(freeze(knots), freeze(values), float(beyond), freeze(codes, np.uint8))


def _load(shape: ExpertsShape) -> float:
    """Tokens that reach one expert, per token that enters the layer."""
    return shape.num_experts_per_tok / shape.num_experts


def _features(shape: ExpertsShape) -> F64:
    experts, top_k, hidden, width, tp, ep = (float(v) for v in astuple(shape))
    return np.log2([experts / ep, top_k / experts, hidden, width / tp])
