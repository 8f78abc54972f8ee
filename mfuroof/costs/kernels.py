"""The measured-kernel cost: a model bound to the kernel tables of a GPU and an engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, U8
from mfuroof.batch import StepBatch, UniformColumns
from mfuroof.core import step as kernel
from mfuroof.core.isotonic import isotonic
from mfuroof.core.step import StepTables
from mfuroof.costs.base import RESOURCES
from mfuroof.costs.columns import ragged_columns, uniform_columns
from mfuroof.costs.pack import Lanes, PrefillPart, pack
from mfuroof.costs.provenance import SourceMap
from mfuroof.costs.work import WorkModel
from mfuroof.engines import engine_profile
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.ops.attention import AttentionLayers
from mfuroof.ops.curves import Op
from mfuroof.ops.lattice import BATCH_OCTAVES, LENGTH_OCTAVES, PREFILL_BATCH_OCTAVES
from mfuroof.ops.siblings import reference_hardware
from mfuroof.ops.sources import MeasuredOps
from mfuroof.ops.transformer import ForwardPass, forward_pass
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.tables.store import KernelTables

__all__ = ["BoundKernels", "Repair"]

AIC_EXTRA_KERNELS = 1.1
"""AIConfigurator's margin on the rotary and KV-write kernels it adds to prefill attention."""


@dataclass(frozen=True)
class Repair:
    """What making a curve monotone changed: number of breakpoints, and the largest and mean relative change."""

    curve: str
    points: int
    changed: int
    largest: float
    mean: float


@dataclass(frozen=True, eq=False)
class BoundKernels:
    """A model under ``cost="kernels"``: flat arrays for the kernels, and what explains them."""

    components: tuple[str, ...]
    total: StepTables
    parts: StepTables
    resources: StepTables
    sources_of: SourceMap
    work: WorkModel
    repairs: tuple[Repair, ...]

    @classmethod
    def bind(
        cls,
        model: ModelConfig,
        hardware: Hardware,
        parallel: Parallel,
        tables: KernelTables,
        params: CostParams,
        engine: str | None = None,
    ) -> BoundKernels:
        """Compile everything a step of ``model`` needs into flat arrays; ``engine`` is by default the tables' own.

        Raises
        ------
        InputError
            The model does not divide over the ranks.
        ConfigError
            A kind of layer that the kernels cost does not price.
        MissingTableError
            A table is missing and ``params.missing`` is ``"raise"``.
        """
        measured = MeasuredOps(tables, hardware, params, reference_hardware(tables, hardware))
        run = forward_pass(model, parallel, measured, engine_profile(engine or tables.engine))
        knots = np.unique(np.concatenate([op.curve.knots for op in run.ops]))
        repairs: list[Repair] = []
        lanes = {}
        for axis in ("tokens", "sequences"):
            ops = [op for op in run.ops if op.axis == axis]
            lanes[axis] = _Axis.build(axis, ops, knots, hardware.hbm_bytes_per_s, params.monotone, repairs)
        decode, prefill = _attention_parts(run, params, hardware.hbm_bytes_per_s)
        blend, spread = params.prefill_blend, params.decode_kv_spread > 0
        packed = {
            kind: pack(
                getattr(lanes["tokens"], kind),
                getattr(lanes["sequences"], kind),
                decode,
                prefill,
                blend=blend,
                spread=spread,
            )
            for kind in ("total", "parts", "resources")
        }
        names = (*lanes["tokens"].names, *lanes["sequences"].names, "attention_prefill", "attention_decode")
        return cls(
            components=names,
            sources_of=SourceMap.of(run),
            work=WorkModel.of(run, names),
            repairs=tuple(repairs),
            **packed,
        )

    def step_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (n,) with step times. [s]"""
        c = batch.columns
        if isinstance(c, UniformColumns):
            kernel.uniform_times(self.total, *uniform_columns(c), out)
        else:
            kernel.ragged_times(self.total, *ragged_columns(c), out)

    def breakdown(self, batch: StepBatch, out: F64, start: int = 0) -> None:
        """Fill ``out[:, start : start + n]``: row 0 with step times, then a row a component, in one pass. [s]"""
        self._lanes(self.parts, batch, out, start)

    def resource_times(self, batch: StepBatch, out: F64) -> None:
        """Fill ``out`` (4, n): prefill attention counts as compute, decode attention as memory. [s]"""
        four = len(RESOURCES)
        rows = np.empty((1 + 2 * four + 2, len(batch)))
        self._lanes(self.resources, batch, rows, 0)
        np.add(rows[1 : 1 + four], rows[1 + four : 1 + 2 * four], out=out)
        out[RESOURCES.index("compute")] += rows[-2]
        out[RESOURCES.index("memory")] += rows[-1]

    def sources(self, batch: StepBatch, source: U8, distance: F64) -> None:
        """Fill the worst `Source` code and the largest distance to data of each step. [octaves]"""
        self.sources_of.fill(batch, source, distance)

    def flops(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the work of one GPU by component. [FLOP]"""
        return self.work.flops(batch)

    def bytes_moved(self, batch: StepBatch) -> Mapping[str, F64]:
        """Return the HBM traffic of one GPU by component. [bytes]"""
        return self.work.bytes_moved(batch)

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
        segments, cells, layout = self.total
        return kernel.step_time(
            segments,
            cells,
            layout,
            decode_batch,
            decode_context,
            prefill_batch,
            prefill_new_tokens,
            prefill_context,
            emits,
        )

    def _lanes(self, tables: StepTables, batch: StepBatch, out: F64, start: int) -> None:
        c, place = batch.columns, (start, start + len(batch))
        if isinstance(c, UniformColumns):
            kernel.uniform_lanes(self.total, tables, *uniform_columns(c), *place, out)
        else:
            kernel.ragged_lanes(self.total, tables, *ragged_columns(c), *place, out)


@dataclass(frozen=True, eq=False)
class _Axis:
    """The curves of one count axis on common knots: their sum, each component, each resource."""

    names: tuple[str, ...]
    total: Lanes
    parts: Lanes
    resources: Lanes

    @classmethod
    def build(
        cls, axis: str, ops: list[Op], knots: F64, bandwidth: float, monotone: bool, repairs: list[Repair]
    ) -> _Axis:
        names = tuple(dict.fromkeys(op.name for op in ops))
        parts, slopes = np.zeros((len(names), knots.size)), np.zeros(len(names))
        by_resource, resource_slopes = np.zeros((len(RESOURCES), knots.size)), np.zeros(len(RESOURCES))
        roofline = np.zeros(knots.size)
        for op in ops:
            time = op.count * op.curve.at(knots)
            row = names.index(op.name)
            parts[row] += time
            slopes[row] += op.count * op.curve.beyond_s
            charged = _resource_rows(op, knots, bandwidth)
            np.add.at(by_resource, (charged, np.arange(knots.size)), time)
            resource_slopes[charged[-1]] += op.count * op.curve.beyond_s
            roofline += op.count * op.roofline_time_s(knots, bandwidth)
        raw = parts.sum(axis=0)
        total = raw
        if monotone and np.isfinite(raw).all():
            repaired = np.empty_like(raw)
            isotonic(raw, repaired)
            total = np.maximum(repaired, roofline)
            change = np.abs(total / np.where(raw > 0, raw, 1.0) - 1.0)
            changed = int((change > 1e-12).sum())
            repairs.append(Repair(axis, raw.size, changed, float(change.max()), float(change.mean())))
            scale = total / np.where(raw > 0, raw, 1.0)
            parts, by_resource = parts * scale, by_resource * scale
        return cls(
            names,
            Lanes(knots, total[None, :], np.array([slopes.sum()])),
            Lanes(knots, parts, slopes),
            Lanes(knots, by_resource, resource_slopes),
        )


def _resource_rows(op: Op, knots: F64, bandwidth: float) -> np.ndarray:
    if op.resource is not None:
        return np.full(knots.size, RESOURCES.index(op.resource))
    compute = op.compute_time_s(knots) >= op.memory_time_s(knots, bandwidth)
    return np.where(compute, RESOURCES.index("compute"), RESOURCES.index("memory"))


def _attention_parts(run: ForwardPass, params: CostParams, bandwidth: float) -> tuple[F64, list[PrefillPart]]:
    decode = np.sum([layers.count * layers.decode.time_s for layers in run.attention], axis=0)
    windows: dict[int, list[AttentionLayers]] = {}
    for layers in run.attention:
        windows.setdefault(layers.shape.window, []).append(layers)
    prefill = []
    for window, group in windows.items():
        launch = np.sum([x.count * x.prefill.launch_s for x in group], axis=0)
        time = np.sum([x.count * x.prefill.time_s for x in group], axis=0)
        if params.prefill_extra_kernels:
            extra = sum(x.count * _aic_extra_s(x, params) for x in group)
            launch, time = launch + extra, time + extra
        read, query = 0.0, 0.0
        if params.prefix_kv_floor:
            read = sum(x.count * _kv_read_s(x, bandwidth) for x in group)
            query = sum(x.count * x.shape.query_bytes_per_token / bandwidth for x in group)
        prefill.append(PrefillPart(launch, time, float(window) if window else np.inf, read, query))
    if not prefill:  # no layer attends to anything
        decode = np.zeros((BATCH_OCTAVES, LENGTH_OCTAVES))
        prefill.append(
            PrefillPart(
                np.zeros(PREFILL_BATCH_OCTAVES), np.zeros((PREFILL_BATCH_OCTAVES, LENGTH_OCTAVES)), np.inf, 0.0, 0.0
            )
        )
    return decode, prefill


def _kv_read_s(layers: AttentionLayers, bandwidth: float) -> float:
    """Seconds per cached token at the rate one long decode request reads its cache, at best the bandwidth.

    So a chunk of one token behind a long prefix costs what a decode step costs there.
    """
    last = layers.decode.time_s[0]
    per_token = (last[17] - last[16]) / 2.0**16
    window = layers.shape.window
    roofline = layers.shape.kv_bytes_per_token / bandwidth
    if window == 1:  # a recurrent state is no cache of tokens
        return 0.0
    return roofline if window or not np.isfinite(per_token) else max(per_token, roofline)


def _aic_extra_s(layers: AttentionLayers, params: CostParams) -> float:
    """Rotary and KV write of one token, as AIConfigurator adds them to each prefill attention."""
    query, kv = layers.shape.heads * layers.shape.head_dim, layers.shape.kv_heads * layers.shape.head_dim

    def gather(bytes_moved: float) -> float:
        bandwidth = params.elementwise_bandwidth_efficiency * layers.hbm_bytes_per_s
        return bytes_moved / bandwidth + params.elementwise_launch_s

    return AIC_EXTRA_KERNELS * (2.0 * gather(2.0 * query + 2.0 * kv) + 2.0 * gather(2.0 * kv))


