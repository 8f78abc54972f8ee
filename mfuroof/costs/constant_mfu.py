"""The constant-MFU cost: one share of the peak rate per phase, all traffic at one share of the bandwidth.

A step takes max(compute, memory), plus ``overlap_penalty`` times the smaller of the two, plus communication and
overheads. Under ``phase_combination="joint"`` compute and memory are those of the whole step, weights read once; under
the other rules each phase has its own and the step is their sum (or maximum).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, U8, freeze
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.core import constant_mfu as formula
from mfuroof.core import constant_mfu_batches as kernel
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.costs.columns import ragged_columns, uniform_columns
from mfuroof.costs.constants import mfu_pair
from mfuroof.costs.counts import StepCounts
from mfuroof.costs.layered_work import layered_work
from mfuroof.costs.links import comm_seconds_per_token
from mfuroof.costs.refrozen import Refrozen
from mfuroof.costs.uniform_model import UniformModel, ignored
from mfuroof.costs.uniform_work import uniform_work
from mfuroof.costs.workload import Workload
from mfuroof.errors import MfuroofWarning
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams

__all__ = ["BoundConstantMfu"]

_RULES = {
    "joint": formula.JOINT,
    "sum": formula.PHASE_SUM,
    "max": formula.PHASE_MAX,
    "token_weighted": formula.TOKEN_WEIGHTED,
}


_NO_BREAKDOWN = np.empty((0, 0))


@dataclass(frozen=True, eq=False, repr=False)
class BoundConstantMfu(Refrozen):
    """A model on a GPU under ``cost="constant_mfu"``.

    Attributes
    ----------
    components
        ``compute, memory, comm, overhead`` under the joint rule: the step takes max(compute, memory) +
        overlap_penalty * min(compute, memory) + comm + overhead. Otherwise ``prefill_compute, prefill_memory,
        decode_compute, decode_memory, comm, overhead``, and `combine` says how they add up.
    constants, reaches, weights
        Flat arrays of `mfuroof.core.constant_mfu`: arguments for `mfuroof.core.constant_mfu_batches.step_time`.
    work
        The work and traffic they were made from.
    mfu_prefill, mfu_decode
        Utilisation used, multipliers included. [fraction]
    """

    components: tuple[str, ...]
    constants: F64
    reaches: F64
    weights: F64
    work: Workload
    mfu_prefill: float
    mfu_decode: float
    rule: str
    overlap_penalty: float

    @classmethod
    def bind(cls, model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams) -> BoundConstantMfu:
        """Compile a model on a GPU into coefficients.

        Any ``tp_size`` is taken, whether or not heads and widths divide over it. Pipeline stages change nothing: a
        step passes all of them one after the other.

        Raises
        ------
        InputError
            The GPU has no rate for a dtype the model computes in (fp32), or no link that the parameters charge.

        Warns
        -----
        MfuroofWarning
            No MFU was given nor fitted for this GPU under a peer's conventions; decode MFU above prefill MFU; or the
            conventions do not see the model's precision, experts or latent attention.
        """
        prefill, decode = _utilisation(hardware, params)
        if params.architecture == "layers":
            work = layered_work(model, hardware, parallel, params)
        else:
            _warn(f"{t}; cost='constant_mfu' with its defaults does" for t in ignored(model, params))
            work = uniform_work(UniformModel.of(model, params), hardware, parallel, params)
        rule = params.phase_combination or "joint"
        constants, reaches, weights = _compile(work, model, hardware, parallel, params, prefill, decode, rule)
        return cls(
            components=RESOURCES if rule == "joint" else formula.PARTS,
            constants=constants,
            reaches=reaches,
            weights=weights,
            work=work,
            mfu_prefill=prefill,
            mfu_decode=decode,
            rule=rule,
            overlap_penalty=params.overlap_penalty,
        )

    def step_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (n,) with step times. [s]"""
        self._fill(batch, out, _NO_BREAKDOWN)

    def breakdown(self, batch: StepBatch, out: F64, start: int = 0) -> None:
        """Fill ``out[:, start : start + n]``: row 0 with step times, then a row a component. [s]"""
        stop = start + len(batch)
        parts = np.empty((len(formula.PARTS), len(batch)))
        self._fill(batch, out[0, start:stop], parts)
        out[1:, start:stop] = parts[[0, 1, 4, 5]] if self.rule == "joint" else parts

    def resource_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (4, n): compute and memory of both phases, communication, overhead. [s]"""
        parts = self._parts(batch)
        out[0], out[1] = parts[0] + parts[2], parts[1] + parts[3]
        out[2:] = parts[4:]

    def combine(self, components: F64) -> F64:
        """Return step times (n,) from the parts of `breakdown` (len(components), n): the combination rule. [s]"""
        *phases, comm, overhead = components
        q = self.overlap_penalty
        times = [np.maximum(c, m) + q * np.minimum(c, m) for c, m in zip(phases[::2], phases[1::2], strict=True)]
        work = np.maximum(*times) if self.rule == "max" else np.sum(times, axis=0)
        return np.asarray(work + comm + overhead)

    def sources(self, batch: StepBatch, source: U8, distance: F64) -> None:
        """Fill with ROOFLINE and 0: nothing is looked up."""
        source[:] = Source.ROOFLINE
        distance[:] = 0.0

    def flops(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the work of one GPU: matrix products, attention, LM head. [FLOP]"""
        return StepCounts.of(batch).flops(self.work)

    def bytes_moved(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the traffic of one GPU: weights, KV cache (and states), activations. [bytes]"""
        return StepCounts.of(batch).bytes_moved(self.work)

    def scalar(
        self,
        decode_batch: float,
        decode_context: float,
        prefill_batch: float,
        prefill_new_tokens: float,
        prefill_context: float,
        emits: float,
    ) -> float:
        """Return the time of one step. [s]"""
        return kernel.step_time(
            self.constants,
            self.reaches,
            self.weights,
            float(decode_batch),
            float(decode_context),
            float(prefill_batch),
            float(prefill_new_tokens),
            float(prefill_context),
            float(emits),
        )

    def __repr__(self) -> str:
        return f"BoundConstantMfu({', '.join(self.components)}; MFU {self.mfu_prefill:g} and {self.mfu_decode:g})"

    def _parts(self, batch: StepBatch) -> F64:
        parts = np.empty((len(formula.PARTS), len(batch)))
        self._fill(batch, np.empty(len(batch)), parts)
        return parts

    def _fill(self, batch: StepBatch, out: F64, breakdown: F64) -> None:
        c, bound = batch.columns, (self.constants, self.reaches, self.weights)
        if isinstance(c, UniformColumns):
            kernel.uniform_times(*bound, *uniform_columns(c), out, breakdown)
        else:
            kernel.ragged_times(*bound, *ragged_columns(c), out, breakdown)


def _warn(texts: Iterable[str]) -> None:
    for text in texts:
        warnings.warn(text, MfuroofWarning, stacklevel=5)


def _utilisation(hardware: Hardware, params: CostParams) -> tuple[float, float]:
    pair, fitted = mfu_pair(hardware)
    given = params.mfu_prefill, params.mfu_decode
    prefill = pair.prefill if given[0] is None else given[0]
    decode = pair.decode if given[1] is None else given[1]
    if None in given and not fitted and params.architecture != "layers":
        _warn(
            [
                f"no MFU pair was fitted for {hardware.name}: taking {prefill:g} for prefill and {decode:g} for "
                "decode; give mfu_prefill and mfu_decode"
            ]
        )
    if None in given and decode > prefill:
        _warn([f"mfu_decode = {decode:g} is above mfu_prefill = {prefill:g} on {hardware.name}: are they swapped?"])
    return prefill * params.mfu_prefill_multiplier, decode * params.mfu_decode_multiplier


def _compile(
    work: Workload,
    model: ModelConfig,
    hardware: Hardware,
    parallel: Parallel,
    params: CostParams,
    mfu_prefill: float,
    mfu_decode: float,
    rule: str,
) -> tuple[F64, F64, F64]:
    """Coefficients in seconds. A peer that leaves a token's own key out counts one pair less per new token."""
    p, tp = params, parallel.tp_size
    bandwidth = hardware.hbm_bytes_per_s * p.bandwidth_efficiency
    spread_p, spread_d = tp ** (1.0 - p.prefill_tp_exponent), tp ** (1.0 - p.decode_tp_exponent)
    gemm_p, gemm_d = spread_p / mfu_prefill, spread_d / mfu_decode
    share = p.attention_peak_fraction
    score_p, score_d = (gemm_p, gemm_d) if share is None else (spread_p / share, spread_d / share)
    memory_p = 1.0 / (bandwidth * p.prefill_bandwidth_factor)
    memory_d = spread_d / (bandwidth * p.decode_bandwidth_factor)
    own = 0.0 if p.score_diagonal else -1.0
    rows = np.zeros((len(work.reaches), len(formula.REACHES)))
    own_p, own_d = 0.0, 0.0
    for row, reach in zip(rows, work.reaches, strict=True):
        row[:] = (
            formula.NO_CAP if reach.window is None else reach.window - 1.0,
            reach.prefill_pair.peak_s * score_p,
            reach.prefill_context.peak_s * gemm_p,
            reach.read_bytes * memory_p * p.prefill_kv_read_fraction,
            reach.decode_pair.peak_s * score_d,
            reach.read_bytes * memory_d * p.decode_kv_read_fraction,
        )
        own_p += own * reach.prefill_pair.peak_s * score_p
        own_d += (1.0 + own) * reach.decode_pair.peak_s * score_d
    written = work.kv_write_bytes
    token_bytes = {
        "prefill": written + work.activation_bytes * p.prefill_activation_fraction,
        "decode": written + work.activation_bytes * p.decode_activation_fraction,
    }
    layers = model.num_hidden_layers
    values = {
        "rule": _RULES[rule],
        "mixed_penalty": p.mixed_batch_penalty,
        "overlap_penalty": p.overlap_penalty,
        "prefill_token_s": work.token.peak_s * gemm_p + own_p,
        "emit_s": work.emission.peak_s * gemm_p,
        "decode_request_s": (work.token.peak_s + work.emission.peak_s) * gemm_d + own_d,
        "prefill_token_memory_s": token_bytes["prefill"] * memory_p,
        "prefill_request_memory_s": work.state_bytes * memory_p,
        "decode_request_memory_s": (token_bytes["decode"] + work.state_bytes) * memory_d,
        "head_weights_s": work.head_bytes / (bandwidth * p.weight_bandwidth_efficiency),
        "kv_base": 1.0 / p.kv_bandwidth_base,
        "kv_gain": p.kv_bandwidth_gain,
        "kv_per_batch": 1.0 / p.kv_bandwidth_batch,
        "comm_token_s": comm_seconds_per_token(model, hardware, parallel, params, default="none"),
        "comm_fixed_s": 2.0 * layers * p.all_reduce_latency_s if tp > 1 else 0.0,
        "step_overhead_s": p.step_overhead_s + layers * p.layer_overhead_s / tp,
        "prefill_overhead_s": p.prefill_overhead_s,
        "decode_overhead_s": p.decode_overhead_s,
        "prefill_request_overhead_s": p.prefill_request_overhead_s,
        "mixed_request_overhead_s": p.mixed_request_overhead_s,
        "empty_overhead": float(p.empty_step_overhead),
        "prefill_weights": 1.0 / p.prefill_bandwidth_factor,
        "decode_weights": spread_d / p.decode_bandwidth_factor,
    }
    weights = work.weight_bytes() / (bandwidth * p.weight_bandwidth_efficiency)
    return freeze([values[name] for name in formula.CONSTANTS]), freeze(rows), freeze(weights)
