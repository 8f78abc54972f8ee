"""MFU tables made of measured kernel latencies: FLOPs over latency and the peak rate of the kernel's own dtype."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mfuroof._types import freeze
from mfuroof.costs.layered_work import format_rate
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, Format
from mfuroof.tables.bench import BenchData
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.bench_layout import LAYOUTS, Layout
from mfuroof.tables.store import KernelTables
from mfuroof.tables.work import file_flops
from mfuroof.units import US

__all__ = ["DerivedTables", "derive"]

_EXPERT_KEY = (
    "num_experts", "num_gpus", "num_local_experts", "num_experts_per_tok", "hidden_size", "intermediate_size"
)  # fmt: skip
_SAME_KERNEL = {"fp16": "bf16"}
"""Formats whose kernels were measured under another name."""


@dataclass(frozen=True, eq=False)
class DerivedTables:
    """MFU tables, how their GEMMs are filed, and whether experts were borrowed; see `TableSource`."""

    data: BenchData
    gemm_labels: tuple[tuple[str, str, str], ...]
    expert_stand_ins: bool


def derive(
    tables: KernelTables, model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams
) -> DerivedTables:
    """Return MFU tables of the kernels a model needs.

    MFU is relative to the rates of ``hardware``, the GPU they were measured on, unrounded. Attention is that of one
    prompt (prefill), 16-bit scores and the model's cache dtype, without windows. Expert kernels are measured as a
    whole: both projections get its MFU.
    With ``params.transfer`` GEMMs of an unmeasured format are those of the format it computes in, and experts of an
    unmeasured shape those of `MeasuredOps.experts_curve`. For BLIS's rules decode files are named as it looks for
    them, by the heads of the model and the ranks.
    """
    files: list[BenchFile] = []
    labels, rates = [], {}
    for fmt in _formats(model):
        for measured in _candidates(fmt, params):
            rows = _rows(tables, "gemm", dtype=_SAME_KERNEL.get(measured, measured))
            if rows is not None:
                label = f"{tables.gpu} {fmt.name}"
                # MFU of another format's kernels is relative to that format's rate, and then held on our own
                rates[label] = format_rate(hardware, FORMATS[measured])
                columns = {name: rows[name] for name in "mkn"}
                files.append(_file(_layout("gemm"), label, "data", (), rows["latency_s"], columns, rates[label]))
                labels.append((fmt.name, label, measured))
                break
    blis = params.lookup_rule in ("blis_v2", "blis_floor")
    bf16, experts = hardware.peak("bf16"), format_rate(hardware, _expert_format(model))
    files += _attention(tables, "attn_prefill", model, bf16)
    files += _attention(tables, "attn_decode", model, bf16, parallel.tp_size if blis else 0)
    measured_experts = _experts(tables, model, params, experts)
    borrowed = _borrowed_experts(tables, model, hardware, parallel, params, experts, measured_experts)
    files += borrowed or measured_experts
    peaks = {label: dict.fromkeys(("bf16", "fp8"), rate) for label, rate in rates.items()}
    peaks[tables.gpu] = {"bf16": bf16, "fp8": experts}
    for figures in peaks.values():
        figures["hbm_bytes_per_s"] = hardware.hbm_bytes_per_s
    data = BenchData(f"{tables.gpu} kernels of {tables.engine}", tuple(files), (), peaks)
    return DerivedTables(data, tuple(labels), bool(borrowed))


def _candidates(fmt: Format, params: CostParams) -> list[str]:
    """Return the formats whose GEMMs may stand for one, the best first."""
    if not params.transfer:
        return [fmt.name]
    by_class = {"fp8": ["fp8", "fp8_block", "bf16"], "fp4": ["nvfp4", "bf16"], "int8": ["int8", "bf16"]}
    return list(dict.fromkeys([fmt.name, *by_class.get(fmt.compute_class, ["bf16"])]))


def _formats(model: ModelConfig) -> list[Format]:
    found = {model.format_in(None, "lm_head"), FORMATS[model.dtype]}
    for layer in model.layers:
        found |= {model.format_in(layer, m.name) for m in model.modules(layer) if m.matrix_params}
    return sorted(found, key=lambda f: f.name)


def _expert_format(model: ModelConfig) -> Format:
    return model.module_format("experts") if model.is_moe else FORMATS[model.dtype]


def _rows(tables: KernelTables, family: str, **where: Any) -> dict[str, Any] | None:
    if not tables.has(family):
        return None
    table = tables.family(family, **where)
    if not table.num_rows:
        return None
    return {name: table.column(name).to_numpy() for name in table.column_names if name not in where}


def _layout(family: str, phase: str = "") -> Layout:
    return next(x for x in LAYOUTS if x.family == family and x.phase == phase)


def _file(
    layout: Layout,
    gpu: str,
    stem: str,
    key: tuple[int, ...],
    latency_s: Any,
    columns: dict[str, Any],
    peak: float,
    tp: int | None = None,
) -> BenchFile:
    """Make a file in memory, its MFU column included."""
    n = np.size(latency_s)
    texts = {c.name: columns.pop(c.name) for c in layout.columns if c.kind == "dtype"}
    held: dict[str, Any] = {name: freeze(values, np.int64) for name, values in columns.items()}
    held |= {name: (text,) * n for name, text in texts.items()}
    times = [c.name for c in layout.columns if c.kind == "time"]
    share = {"up_proj_us": 2 / 3, "down_proj_us": 1 / 3}  # of the FLOPs, and so of the time at one MFU
    held |= {name: freeze(latency_s / US * share.get(name, 1.0)) for name in times}
    path = "/".join(x for x in (layout.family, layout.phase, gpu, f"{stem}.csv") if x)
    lines = freeze(np.arange(1, n + 1), np.int64)
    bare = BenchFile(path, layout, gpu, stem, key, tp, True, lines, MappingProxyType(held), MappingProxyType({}))
    flops = file_flops(bare)
    for column in (c.name for c in layout.columns if c.kind == "share"):
        time = times[0] if column == "mfu" else column.replace("_mfu", "_proj_us")
        held[column] = freeze(flops[column] / (held[time] * US * peak))
    return bare


def _attention(
    tables: KernelTables, family: str, model: ModelConfig, peak: float, named_for_tp: int = 0
) -> list[BenchFile]:
    cache = _SAME_KERNEL.get(model.kv_dtype, model.kv_dtype)
    rows = _rows(tables, family, attn_dtype="bf16", kv_dtype=cache, sliding_window=0)
    if rows is None:
        return []
    layout = _layout("mha", family.removeprefix("attn_"))
    if layout.phase == "prefill":
        single = rows["batch_size"] == 1
        rows = {name: values[single] for name, values in rows.items()}
    heads = [rows[name].astype(np.int64) for name in layout.key]
    configs, of_row = np.unique((heads[0] << 40) | (heads[1] << 20) | heads[2], return_inverse=True)
    order = np.argsort(of_row, kind="stable")
    files = []
    for mine in np.split(order, np.searchsorted(of_row[order], np.arange(1, configs.size))):
        numbers = tuple(int(column[mine[0]]) for column in heads)
        columns: dict[str, Any] = {"dtype": "bf16"}
        if layout.phase == "prefill":
            columns["seq_len"] = rows["new_tokens"][mine]
        else:
            columns |= {"kv_dtype": cache, "batch_size": rows["batch_size"][mine], "kv_len": rows["kv_len"][mine]}
        for tp in sorted({1, named_for_tp}) if named_for_tp else (None,):
            whole = numbers if tp is None else (numbers[0] * tp, numbers[1] * tp, numbers[2])
            stem = "-".join(map(str, whole)) + (f"-tp{tp}" if tp else "")
            made = _file(layout, tables.gpu, stem, whole, rows["latency_s"][mine], dict(columns), peak, tp)
            files.append(made)
    return files


def _experts(tables: KernelTables, model: ModelConfig, params: CostParams, peak: float) -> list[BenchFile]:
    if not model.is_moe:
        return []
    fmt = _expert_format(model).name
    rows = _rows(tables, "moe", dtype=_SAME_KERNEL.get(fmt, fmt), distribution=params.moe_distribution)
    if rows is None:
        return []
    tp, ep = rows["tp_size"].astype(np.int64), rows["ep_size"].astype(np.int64)
    whole = rows["tokens"] % ep == 0  # the layout counts tokens per GPU
    columns = {
        "num_experts": rows["num_experts"],
        "num_gpus": tp * ep,
        "num_local_experts": rows["num_experts"] // ep,
        "num_experts_per_tok": rows["num_experts_per_tok"],
        "hidden_size": rows["hidden_size"],
        "intermediate_size": rows["moe_intermediate_size"] // tp,
        "tokens_per_expert": np.zeros(tp.size, np.int64),
    }
    files = []
    for phase in ("prefill", "decode"):
        layout = _layout("grouped_gemm", phase)
        mine = {name: values[whole] for name, values in columns.items()}
        mine[layout.axes[0]] = (rows["tokens"] // ep)[whole]
        files.append(_file(layout, tables.gpu, "data", (), rows["latency_s"][whole], mine, peak))
    return files


def _borrowed_experts(
    tables: KernelTables,
    model: ModelConfig,
    hardware: Hardware,
    parallel: Parallel,
    params: CostParams,
    peak: float,
    measured: list[BenchFile],
) -> list[BenchFile]:
    """Return grouped GEMMs of the model's own expert shapes where one was not measured, else nothing."""
    from mfuroof.ops.moe import ExpertsShape
    from mfuroof.ops.sources import MeasuredOps

    sparse = [layer for layer in model.layers if layer.mlp.kind == "moe"]
    tp, ep = parallel.moe_tp_size, parallel.ep_size
    shapes = {
        ExpertsShape(
            layer.mlp.num_experts,
            layer.mlp.num_experts_per_tok,
            layer.mlp.latent_size or model.hidden_size,
            layer.mlp.moe_intermediate_size,
            tp,
            ep,
        ): layer
        for layer in sparse
    }
    known = {
        tuple(int(column[i]) for column in (f.columns[n] for n in _EXPERT_KEY)) for f in measured for i in range(len(f))
    }
    wanted = {_key_of(shape) for shape in shapes}
    if not params.transfer or wanted <= known or not tables.has("moe"):
        return []
    kernels, parts = MeasuredOps(tables, hardware, params, hardware), []
    for shape, layer in shapes.items():
        try:
            curve = kernels.experts_curve(
                model.module_dtype("experts", layer), shape, layer.mlp.num_matrices, float(parallel.dp_size)
            )
        except MissingTableError:
            return []
        per_gpu = np.unique(np.ceil(curve.knots * parallel.dp_size / ep)).astype(np.int64)
        parts.append((_key_of(shape), per_gpu, curve.at(per_gpu * ep / parallel.dp_size)))
    files = []
    for phase in ("prefill", "decode"):
        layout = _layout("grouped_gemm", phase)
        columns: dict[str, Any] = {
            name: np.concatenate([np.full(tokens.size, key[i]) for key, tokens, _ in parts])
            for i, name in enumerate(_EXPERT_KEY)
        }
        columns[layout.axes[0]] = np.concatenate([tokens for _, tokens, _ in parts])
        columns["tokens_per_expert"] = np.zeros(columns[layout.axes[0]].size, np.int64)
        latency = np.concatenate([time for _, _, time in parts])
        files.append(_file(layout, tables.gpu, "data", (), latency, columns, peak))
    return files


def _key_of(shape: Any) -> tuple[int, ...]:
    gpus, local = shape.tp_size * shape.ep_size, shape.num_experts // shape.ep_size
    width = shape.moe_intermediate_size // shape.tp_size
    return shape.num_experts, gpus, local, shape.num_experts_per_tok, shape.hidden_size, width
