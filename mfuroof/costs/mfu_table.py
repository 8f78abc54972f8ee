"""The mfu_table cost: matrix products and attention priced by the MFU that was measured for their shapes.

With the defaults a step is one forward pass: products over all tokens of the step, the LM head over the requests that
emit, prefill and decode attention, communication, added up; each product takes at least the time to read its weights.
Peers take the slower of two separate phases (`CostParams.blis_mfu`) or add their own constants (`infersim`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import F64, U8, freeze
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.core import mfu_table as formula
from mfuroof.core import mfu_table_batches as kernel
from mfuroof.core.sources import Source
from mfuroof.costs.attention_tables import AttentionKind, attention_kinds, rows
from mfuroof.costs.columns import ragged_columns, uniform_columns
from mfuroof.costs.counts import StepCounts
from mfuroof.costs.layered_work import layered_work
from mfuroof.costs.links import comm_seconds_per_token
from mfuroof.costs.refrozen import Refrozen
from mfuroof.costs.table_source import open_tables
from mfuroof.costs.token_curve import TokenCurve, token_curve
from mfuroof.costs.token_ops import head_op, token_ops
from mfuroof.costs.uniform_model import UniformModel, ignored
from mfuroof.costs.uniform_work import uniform_work
from mfuroof.costs.workload import Workload
from mfuroof.errors import MfuroofWarning
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams

__all__ = ["BoundMfuTable"]

_RULES = {
    "joint": formula.JOINT,
    "sum": formula.JOINT,
    "max": formula.PHASE_MAX,
    "token_weighted": formula.TOKEN_WEIGHTED,
}
_AGGREGATIONS = {
    "per_request": formula.PER_REQUEST,
    "harmonic": formula.PER_REQUEST,
    "flops_weighted": formula.FLOPS_WEIGHTED,
    "max_kv": formula.MAX_KV,
}
_ONE_PASS = ("gemm", "lm_head", "attention_prefill", "attention_decode", "comm", "overhead")
_ONE_PASS_ROWS = [0, 1, 2, 6, 8, 9]
_NO_BREAKDOWN = np.empty((0, 0))


@dataclass(frozen=True, eq=False, repr=False)
class BoundMfuTable(Refrozen):
    """A model on a GPU under ``cost="mfu_table"``.

    Attributes
    ----------
    components
        ``gemm, lm_head, attention_prefill, attention_decode, comm, overhead``, which add up to the step time. With a
        memory floor per phase, or phases that are not one pass: GEMMs, LM head, attention and memory of prefill, then
        of decode, then comm and overhead; `combine` says how they make the step time.
    constants, attention, tokens_s, heads_s
        Flat arrays of `mfuroof.core.mfu_table_batches`.
    kinds
        Kinds of attention layer with their lookups.
    curves, head
        Token curves (decode, prefill) and that of the LM head, with sources.
    """

    components: tuple[str, ...]
    constants: F64
    attention: F64
    tokens_s: F64
    heads_s: F64
    kinds: tuple[AttentionKind, ...]
    curves: tuple[TokenCurve, TokenCurve]
    head: TokenCurve
    work: Workload
    rule: str
    overlap_penalty: float

    @classmethod
    def bind(
        cls,
        model: ModelConfig,
        hardware: Hardware,
        parallel: Parallel,
        params: CostParams,
        tables: Any = None,
        engine: str = "vllm",
    ) -> BoundMfuTable:
        """Sample the tables for every shape of a model.

        Parameters
        ----------
        tables
            A `BenchData`, its folder, a `KernelTables`, its folder, or None for the embedded ones of ``hardware`` and
            ``engine``, whose latencies are turned into MFU.

        Raises
        ------
        MissingTableError
            A shape has no table and ``params.missing`` is ``"raise"``.
        ConfigError
            A kind of layer that MFU tables cannot price.
        UnknownNameError, InputError
            The tables do not have this GPU, or are no tables; the GPU has no link that is charged.

        Warns
        -----
        MfuroofWarning
            The preset does not see the model's precision, experts or latent attention, or the tables are another GPU's.
        """
        for text in _ignored(model, params):
            warnings.warn(text, MfuroofWarning, stacklevel=4)
        source = open_tables(tables, model, hardware, parallel, engine, params)
        ops, head_product = token_ops(model, hardware, parallel, params), head_op(model, hardware, parallel, params)
        decode = token_curve(ops, source, params, "decode")
        prefill = token_curve(ops, source, params, "prefill") if model.is_moe else decode
        size = max(decode.seconds.size, prefill.seconds.size)
        decode, prefill = decode.extended(size), prefill.extended(size)
        head = token_curve([head_product] if head_product else [], source, params, "decode")
        head.seconds[0] = head.memory_seconds[0] = 0.0  # nobody emits: its weights are not read
        kinds = attention_kinds(model, hardware, parallel, params, source)
        if params.architecture == "layers":
            work = layered_work(model, hardware, parallel, params)
        else:
            work = uniform_work(UniformModel.of(model, params), hardware, parallel, params)
        rule = params.phase_combination or "sum"
        one_pass = _RULES[rule] == formula.JOINT and not params.step_memory_floor
        slopes = decode.slope, prefill.slope, head.slope
        return cls(
            components=_ONE_PASS if one_pass else formula.COLUMNS,
            constants=_constants(work, model, hardware, parallel, params, _RULES[rule], slopes),
            attention=freeze(rows(kinds)),
            tokens_s=freeze(np.stack([decode.seconds, prefill.seconds])),
            heads_s=freeze(head.seconds),
            kinds=kinds,
            curves=(decode, prefill),
            head=head,
            work=work,
            rule=rule,
            overlap_penalty=params.overlap_penalty,
        )

    def step_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (n,) with step times. [s]"""
        self._fill(batch, out, _NO_BREAKDOWN)

    def breakdown(self, batch: StepBatch, out: F64, start: int = 0) -> None:
        """Fill ``out[:, start : start + n]``: row 0 with step times, then a row a component. [s]"""
        stop = start + len(batch)
        parts = np.empty((len(formula.COLUMNS), len(batch)))
        self._fill(batch, out[0, start:stop], parts)
        out[1:, start:stop] = parts[_ONE_PASS_ROWS] if self.components is _ONE_PASS else parts

    def combine(self, components: F64) -> F64:
        """Return step times (n,) from the parts of `breakdown` (len(components), n): the combination rule. [s]"""
        if self.components is _ONE_PASS:
            return np.asarray(components.sum(axis=0))
        compute_p, compute_d = components[0:3].sum(axis=0), components[4:7].sum(axis=0)
        memory_p, memory_d, q = components[3], components[7], self.overlap_penalty

        def side_by_side(compute: F64, memory: F64) -> F64:
            return np.asarray(np.maximum(compute, memory) + q * np.minimum(compute, memory))

        if _RULES[self.rule] == formula.JOINT:
            work = side_by_side(compute_p + compute_d, memory_p + memory_d)
        else:
            phases = side_by_side(compute_p, memory_p), side_by_side(compute_d, memory_d)
            work = np.maximum(*phases) if self.rule == "max" else np.add(*phases)
        return np.asarray(work + components[8] + components[9])

    def resource_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (4, n): decode attention and products that weight reads bound are memory, others compute. [s]"""
        parts, counts = self._parts(batch), StepCounts.of(batch).groups
        shares = [_share(curve, counts.tokens) for curve in self.curves]
        bound = np.where(counts.tokens > counts.decode_batch, shares[1], shares[0])
        products, head = parts[0] + parts[4], parts[1] + parts[5]
        head_bound = head * _share(self.head, counts.sequences)
        out[0] = products * (1.0 - bound) + (head - head_bound) + parts[2]
        out[1] = products * bound + head_bound + parts[6] + parts[3] + parts[7]
        out[2:] = parts[8:]

    def sources(self, batch: StepBatch, source: U8, distance: F64) -> None:
        """Fill the worst `Source` code and the largest distance to data among a step's lookups. [octaves]"""
        g = StepCounts.of(batch).groups
        prefilling = g.tokens > g.decode_batch
        source[:], distance[:] = Source.EXACT, 0.0
        for curve, count, there in (
            (self.curves[0], g.tokens, ~prefilling & (g.tokens > 0)),
            (self.curves[1], g.tokens, prefilling),
            (self.head, g.sequences, g.sequences > 0),
        ):
            at = np.minimum(count, curve.source.size - 1).astype(np.int64)
            beyond = count > curve.source.size - 1
            code = np.where(beyond, np.maximum(curve.source[at], Source.EXTRAPOLATED), curve.source[at])
            far = curve.distance[at] + np.where(beyond, np.log2(np.maximum(count, 1.0) / (curve.source.size - 1)), 0.0)
            source[:] = np.where(there, np.maximum(source, code), source)
            distance[:] = np.where(there, np.fmax(distance, far), distance)
        for kind in self.kinds:
            live = g.decode_count > 0
            code, far = kind.decode.sources(g.decode_batch[g.decode_step[live]], g.decode_kv_len[live])
            np.maximum.at(source, g.decode_step[live], code)
            np.fmax.at(distance, g.decode_step[live], far)
            live = g.prefill_count > 0
            code, far = kind.prefill.sources((g.prefill_context + g.prefill_new_tokens)[live])
            np.maximum.at(source, g.prefill_step[live], code)
            np.fmax.at(distance, g.prefill_step[live], far)

    def flops(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the work of one GPU: matrix products, attention, LM head. [FLOP]"""
        return StepCounts.of(batch).flops(self.work)

    def bytes_moved(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the traffic of one GPU: weights, KV cache, activations. [bytes]"""
        return StepCounts.of(batch).bytes_moved(self.work)

    def __repr__(self) -> str:
        return f"BoundMfuTable({', '.join(self.components)}; {len(self.kinds)} kinds of attention)"

    def _parts(self, batch: StepBatch) -> F64:
        parts = np.empty((len(formula.COLUMNS), len(batch)))
        self._fill(batch, np.empty(len(batch)), parts)
        return parts

    def _fill(self, batch: StepBatch, out: F64, breakdown: F64) -> None:
        if not out.size:
            return
        c, bound = batch.columns, (self.constants, self.attention, self.tokens_s, self.heads_s)
        if isinstance(c, UniformColumns):
            decoding, prompts = len(batch), len(batch)
            contexts, new = c.prefill_context, c.prefill_new_tokens
        else:
            span = slice(c.prefill_offsets[0], c.prefill_offsets[-1])
            decoding, prompts = int(c.decode_offsets[-1] - c.decode_offsets[0]), span.stop - span.start
            contexts, new = c.prefill_contexts[span], c.prefill_new_tokens[span]
        decode_mfu, prefill_mfu = np.empty((len(self.kinds), decoding)), np.empty((len(self.kinds), prompts))
        for k, kind in enumerate(self.kinds):
            kind.decode.fill(c, self.constants, decode_mfu[k])
            kind.prefill.fill(contexts, new, self.constants, prefill_mfu[k])
        if isinstance(c, UniformColumns):
            kernel.uniform_times(*bound, *uniform_columns(c), decode_mfu, prefill_mfu, out, breakdown)
        else:
            kernel.ragged_times(*bound, *ragged_columns(c), decode_mfu, prefill_mfu, out, breakdown)


def _share(curve: TokenCurve, counts: F64) -> F64:
    """Part of a curve's time that weight reads bound."""
    at = np.minimum(counts, curve.seconds.size - 1).astype(np.int64)
    seconds = curve.seconds[at]
    return np.divide(curve.memory_seconds[at], seconds, out=np.zeros_like(seconds), where=seconds > 0)


def _ignored(model: ModelConfig, params: CostParams) -> list[str]:
    if params.architecture != "layers":
        return [f"{text}; cost='mfu_table' with its defaults does not" for text in ignored(model, params)]
    if params.gemm_layout != "infersim":
        return []
    formats = {model.module_dtype(k) for k in ("qkv", "o", "mla", "gate_up", "down", "experts")}
    odd = sorted(formats - {"bf16", "fp16", "fp8", "fp8_block"})
    if not odd:
        return []
    name = model.name or "this model"
    return [f"the preset ignores the precision of {name} ({', '.join(odd)} weights): it knows 8-bit floats and 16 bits"]


def _constants(
    work: Workload,
    model: ModelConfig,
    hardware: Hardware,
    parallel: Parallel,
    params: CostParams,
    rule: float,
    slopes: tuple[float, float, float],
) -> F64:
    p, layers, tp = params, model.num_hidden_layers, parallel.tp_size
    bandwidth = hardware.hbm_bytes_per_s * p.bandwidth_efficiency * p.bytes_per_peak_byte
    per_byte_p = 1.0 / (bandwidth * p.prefill_bandwidth_factor) if p.step_memory_floor else 0.0
    per_byte_d = 1.0 / (bandwidth * p.decode_bandwidth_factor) if p.step_memory_floor else 0.0
    read = sum(reach.read_bytes for reach in work.reaches)
    written, activation = work.kv_write_bytes, work.activation_bytes
    values = {
        "rule": rule,
        "aggregation": _AGGREGATIONS[p.decode_aggregation],
        "own": float(p.score_diagonal),
        "square": float(p.causal_area == "square"),
        "divisor": p.causal_divisor,
        "mixed_penalty": p.mixed_batch_penalty,
        "overlap_penalty": p.overlap_penalty,
        "bucket_min": float(p.prefill_bucket_min),
        "bucket_max": float(p.prefill_bucket_max),
        "weights_s": work.weight_bytes()[-1] * per_byte_p / p.weight_bandwidth_efficiency,
        "prefill_token_memory_s": (written + activation * p.prefill_activation_fraction) * per_byte_p,
        "prefill_context_memory_s": read * p.prefill_kv_read_fraction * per_byte_p,
        "decode_token_memory_s": (written + activation * p.decode_activation_fraction) * per_byte_d,
        "decode_context_memory_s": read * p.decode_kv_read_fraction * per_byte_d,
        "comm_token_s": comm_seconds_per_token(model, hardware, parallel, p, default="ring"),
        "comm_fixed_s": 2.0 * layers * p.all_reduce_latency_s if tp > 1 else 0.0,
        "step_overhead_s": p.step_overhead_s + layers * p.layer_overhead_s / tp,
        "prefill_overhead_s": p.prefill_overhead_s,
        "decode_overhead_s": p.decode_overhead_s,
        "prefill_request_overhead_s": p.prefill_request_overhead_s,
        "mixed_request_overhead_s": p.mixed_request_overhead_s,
        "empty_overhead": float(p.empty_step_overhead),
        "decode_slope_s": slopes[0],
        "prefill_slope_s": slopes[1],
        "head_slope_s": slopes[2],
    }
    return freeze([values[name] for name in formula.CONSTANTS])
