"""Seconds of matrix products for every number of tokens: MFU lookups sampled once, at bind.

A curve has one entry a token up to the last measured count (and beyond the last crossing with a weight-read floor);
from there on MFU is constant and time linear.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.core.isotonic import isotonic
from mfuroof.core.sources import Source
from mfuroof.costs.layered_work import format_rate
from mfuroof.costs.refrozen import Refrozen
from mfuroof.costs.table_source import TableSource, or_policy
from mfuroof.costs.token_op import TokenOp
from mfuroof.costs.workload import Experts
from mfuroof.params import CostParams

__all__ = ["TokenCurve", "token_curve"]

MAX_TOKENS = 2**18
"""Longest curve: 2 MiB; tables end at 131,072."""
_STEPPED = ("floor", "blis_floor", "infersim")
"""Rules under which the MFU between two measured token counts is that of the lower one."""


@dataclass(frozen=True, eq=False)
class TokenCurve(Refrozen):
    """Sum of operations over tokens 0, 1, 2 …

    Attributes
    ----------
    seconds
        Time (m + 1,). [s]
    slope
        Time per token beyond. [s]
    memory_seconds
        Part of it in operations that reading their weights would bound at the peak rate (m + 1,). [s]
    source, distance
        Worst code and largest distance among the lookups (m + 1,). [octaves]
    """

    seconds: F64
    slope: float
    memory_seconds: F64
    source: U8
    distance: F64

    def extended(self, size: int) -> TokenCurve:
        """Return the same curve with at least ``size`` entries."""
        more = size - self.seconds.size
        if more <= 0:
            return self
        beyond = self.seconds[-1] + self.slope * np.arange(1, more + 1)
        return TokenCurve(
            np.concatenate([self.seconds, beyond]),
            self.slope,
            np.pad(self.memory_seconds, (0, more), mode="edge"),
            np.pad(self.source, (0, more), mode="edge"),
            np.pad(self.distance, (0, more), mode="edge"),
        )


def token_curve(ops: list[TokenOp], source: TableSource, params: CostParams, phase: str) -> TokenCurve:
    """Return the time of all operations by tokens.

    Parameters
    ----------
    phase
        ``"prefill"`` or ``"decode"``: which grouped GEMMs are read.
    """
    last = _last_count(ops, source)
    while True:
        counts = np.arange(last + 1, dtype=np.float64)
        total: F64 = np.zeros(counts.size)
        memory: F64 = np.zeros(counts.size)
        worst, far = np.zeros(counts.size, np.uint8), np.zeros(counts.size)
        slope, crossing = 0.0, 0.0
        for op in ops:
            time, floor, code, distance = _op_seconds(op, counts, source, params, phase)
            charged = op.count * np.where(time < floor, floor, time)
            total += charged
            weight_bound = op.flops_per_token * counts / op.peak_flops_per_s < floor
            memory += np.where(weight_bound, charged, 0.0)
            slope += op.count * time[-1] / counts[-1]
            np.maximum(worst, code, out=worst)
            np.fmax(far, distance, out=far)
            if time[-1] < floor[-1]:
                crossing = max(crossing, floor[-1] / (time[-1] / counts[-1]))
        if crossing < last or last >= MAX_TOKENS:
            break
        last = min(int(np.ceil(crossing)) + 1, MAX_TOKENS)
    if params.monotone and np.isfinite(total).all():
        total, memory = _repaired(total, memory, ops)
    return TokenCurve(total, slope, memory, worst, far)


def _last_count(ops: list[TokenOp], source: TableSource) -> int:
    return int(min(max((_knots(op, source)[-1] for op in ops), default=1.0), MAX_TOKENS))


def _knots(op: TokenOp, source: TableSource) -> F64:
    """Return the token counts of a step at which an operation was measured, ascending."""
    if op.experts is None:
        return source.gemm_tokens(op.fmt)
    return np.unique(np.ceil(source.grouped_tokens() / op.tokens_per_gpu))


def _op_seconds(
    op: TokenOp, counts: F64, source: TableSource, params: CostParams, phase: str
) -> tuple[F64, F64, U8, F64]:
    """Return time by MFU, weight floor, source and distance of one call at every count, the first being 0."""
    knots = _knots(op, source)
    knots = knots[knots <= counts[-1]]
    by_latency = source.rule == "linear"
    stepped = source.rule in _STEPPED and (op.experts is None or phase == "prefill")  # grouped decode reads the nearest
    blended = op.experts is None and source.gemm_blends(op.fmt, op.k, op.n)
    sparse = by_latency or stepped or blended
    sampled = np.unique(np.concatenate([[1.0], knots])) if sparse else counts[1:]
    mfu, code, distance = _read(op, sampled, source, params, phase)
    at = np.clip(np.searchsorted(sampled, counts, side="right") - 1, 0, sampled.size - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if by_latency:
            time = op.flops_per_token * sampled / (op.peak_flops_per_s * mfu)
            if params.lookup_rule == "latency":
                time *= _held_roofline(op, sampled, source)
            if params.lookup_rule == "latency" and knots.size:  # below the first measurement a kernel takes its time
                time[sampled < knots[0]] = time[np.searchsorted(sampled, knots[0])]
            seconds = np.interp(counts, sampled, time)
        else:
            every = np.interp(counts, sampled, mfu) if blended else mfu[at]
            seconds = op.flops_per_token * counts / (op.peak_flops_per_s * every)
    seconds[0] = 0.0
    between = sampled[at] != counts
    code = np.where(between, np.maximum(code[at], Source.INTERPOLATED), code[at]).astype(np.uint8)
    return seconds, _floor(op, counts), code, distance[at]


def _held_roofline(op: TokenOp, counts: F64, source: TableSource) -> F64:
    """Return what turns a held MFU into a held share of the roofline, of another storage format or GPU than measured.

    Where compute binds the two agree; where weights are read, bytes and bandwidth count: a 4-bit matrix takes half the
    time of the 8-bit one that was measured, though it computes at the 16-bit rate.
    """
    measured = source.measured_format(op)
    peak = source.gemm_peak(op)
    rate = format_rate(source.reference, measured)
    slower = source.hardware.hbm_bytes_per_s / source.reference.hbm_bytes_per_s
    compute, read = op.flops_per_token * counts, _read_s(op, counts)
    ours = np.maximum(compute / op.peak_flops_per_s, read)
    theirs = np.maximum(compute / rate, read * slower * measured.bytes_per_weight / op.fmt.bytes_per_weight)
    return np.asarray(op.peak_flops_per_s / peak * (ours / theirs))


def _read_s(op: TokenOp, counts: F64) -> F64:
    """Return the time to read the weights that each number of tokens needs. [s]"""
    if op.experts is None or not op.gathered:
        return np.full(counts.size, op.read_s)
    key = op.experts
    experts = Experts(key.num_experts, key.num_experts_per_tok, 1.0, op.gathered)
    return op.read_s * experts.distinct(counts) / key.num_experts


def _floor(op: TokenOp, counts: F64) -> F64:
    return _read_s(op, counts) if op.floored else np.zeros(counts.size)


def _read(
    op: TokenOp, counts: F64, source: TableSource, params: CostParams, phase: str
) -> tuple[F64, U8, F64]:
    """Return MFU, source and distance at some token counts."""
    whole = counts.astype(np.int64)
    if op.experts is None:
        found = or_policy(source, lambda: source.gemm(op.fmt, whole, op.k, op.n), (whole.size,))
        return found.values, found.source, found.distance
    key = op.experts.as_dict()
    entering = np.ceil(counts * op.tokens_per_gpu).astype(np.int64)
    both = or_policy(source, lambda: source.grouped(phase, key, entering), (2, whole.size))
    up, down = both.values
    if params.expert_mfu == "max":
        mfu = np.maximum(up, down)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            mfu = 3.0 / (2.0 / up + 1.0 / down)  # two thirds of the work in gate and up
    return mfu, both.source.max(axis=0), both.distance.max(axis=0)


def _repaired(total: F64, memory: F64, ops: list[TokenOp]) -> tuple[F64, F64]:
    """Make the sum non-decreasing (least squares) and no faster than peak rates and weight reads allow."""
    repaired = np.empty_like(total)
    isotonic(total, repaired)
    counts = np.arange(total.size, dtype=np.float64)
    roofline = np.zeros(total.size)
    for op in ops:
        roofline += op.count * np.maximum(op.flops_per_token * counts / op.peak_flops_per_s, _floor(op, counts))
    repaired = np.maximum(repaired, roofline)
    scale = np.divide(repaired, total, out=np.ones_like(total), where=total > 0)
    return repaired, memory * scale
