"""From one AIConfigurator table to one of ours: names, units, dtypes, constants and repeated keys.

The source measures in milliseconds, calls the phases context and generation, counts heads per GPU, and stores the
cached length of a decode step in ``step`` with ``isl`` = 1, so that ``kv_len`` = ``isl`` + ``step``. Its message sizes
are in elements of the whole vector: what every rank ends with for all-reduce and all-gather, what it starts with
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mfuroof._boundary import Problems
from mfuroof.errors import Problem, TableFormatError
from mfuroof.ingest.merge import merge_repeated
from mfuroof.tables.schema import family
from mfuroof.units import MS

__all__ = ["DTYPE_MAP", "NCCL_TABLE", "SOURCE_TABLES", "VARIABLE_MAP", "Converted", "SourceTable", "convert"]


@dataclass(frozen=True)
class SourceTable:
    """Where a family lies in the source tree: ``data/<gpu>/<folder>/<backend>/<version>/<file>``."""

    folder: str
    file: str


SOURCE_TABLES: Mapping[str, SourceTable] = MappingProxyType(
    {
        "gemm": SourceTable("gemm", "gemm_perf.parquet"),
        "attn_prefill": SourceTable("attention", "context_attention_perf.parquet"),
        "attn_decode": SourceTable("attention", "generation_attention_perf.parquet"),
        "moe": SourceTable("moe", "moe_perf.parquet"),
        "mla_module_prefill": SourceTable("mla", "mla_context_module_perf.parquet"),
        "mla_module_decode": SourceTable("mla", "mla_generation_module_perf.parquet"),
        "mla_prefill": SourceTable("mla", "context_mla_perf.parquet"),
        "mla_decode": SourceTable("mla", "generation_mla_perf.parquet"),
        "mla_bmm": SourceTable("mla_bmm", "mla_bmm_perf.parquet"),
        "comm": SourceTable("comm", "custom_allreduce_perf.parquet"),
    }
)
"""One source table per family; ``comm`` gets `NCCL_TABLE` in addition."""

NCCL_TABLE = SourceTable("comm", "nccl_perf.parquet")

_ATTENTION = {
    "attn_dtype": "attn_dtype",
    "kv_cache_dtype": "kv_dtype",
    "num_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "window_size": "sliding_window",
    "batch_size": "batch_size",
}
_MLA = {
    "mla_dtype": "attn_dtype",
    "kv_cache_dtype": "kv_dtype",
    "num_heads": "num_attention_heads",
    "batch_size": "batch_size",
}
_MODULE = {"gemm_type": "gemm_dtype", "architecture": "architecture", **_MLA}

VARIABLE_MAP: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "gemm": {"gemm_dtype": "dtype", "n": "n", "k": "k", "m": "m"},
        "attn_prefill": {**_ATTENTION, "isl": "new_tokens"},
        "attn_decode": _ATTENTION,
        "moe": {
            "moe_dtype": "dtype",
            "num_experts": "num_experts",
            "topk": "num_experts_per_tok",
            "hidden_size": "hidden_size",
            "inter_size": "moe_intermediate_size",
            "moe_tp_size": "tp_size",
            "moe_ep_size": "ep_size",
            "distribution": "distribution",
            "num_tokens": "tokens",
        },
        "mla_module_prefill": {**_MODULE, "isl": "new_tokens"},
        "mla_module_decode": _MODULE,
        "mla_prefill": {**_MLA, "isl": "new_tokens"},
        "mla_decode": _MLA,
        "mla_bmm": {"op_name": "op", "bmm_dtype": "dtype", "num_heads": "num_attention_heads", "num_tokens": "tokens"},
        "comm": {"op_name": "op", "allreduce_dtype": "dtype", "num_gpus": "num_gpus", "message_size": "elements"},
        "nccl": {"op_name": "op", "nccl_dtype": "dtype", "num_gpus": "num_gpus", "message_size": "elements"},
    }
)
"""Source column -> our column, per family. ``kv_len`` is derived; every other column is a label or a constant."""

DTYPE_MAP: Mapping[str, str] = MappingProxyType(
    {
        "bfloat16": "bf16",
        "float16": "fp16",
        "half": "fp16",
        "fp8": "fp8",
        "fp8_block": "fp8_block",
        "int8": "int8",
        "sq": "int8",
        "int8_wo": "int8_wo",
        "int4_wo": "int4_wo",
        "nvfp4": "nvfp4",
        "w4a16_mxfp4": "w4a16_mxfp4",
        "w4a8_mxfp4_mxfp8": "w4a8_mxfp4_mxfp8",
    }
)
"""Source dtype -> ours; ``sq`` (SmoothQuant) has 8-bit integer weights and activations."""

OP_MAP: Mapping[str, str] = MappingProxyType(
    {
        "mla_gen_pre": "pre",
        "mla_gen_post": "post",
        "all_reduce": "all_reduce",
        "all_gather": "all_gather",
        "reduce_scatter": "reduce_scatter",
        "alltoall": "all_to_all",
    }
)
"""Source operation -> ours."""

LABELS = frozenset(
    (
        "framework",
        "version",
        "device",
        "op_name",
        "kernel_source",
        "model",
        "power",
        "power_limit",
        "backend",
        "implementation",
    )
)
"""Source columns that name or accompany a measurement without distinguishing kernels of one key."""

_IGNORED: Mapping[str, frozenset[str]] = {
    # The kernel sees its own heads only: rows of different tensor-parallel degree with equal heads repeat one kernel.
    "mla_prefill": frozenset({"tp_size"}),
    "mla_decode": frozenset({"tp_size"}),
}
_ABSENT = {"sliding_window": 0}  # older slots have no window column: they measured full attention only


@dataclass(frozen=True)
class Converted:
    """One source table in our columns, keys sorted and unique, with what was done to it.

    Attributes
    ----------
    table
        Rows under the schema of the family.
    rows_in, rows_used
        Rows of the source file, and those left after choosing dtypes and graph rows.
    labels
        Framework, version and device the rows name, and their kernel sources with row counts.
    constants
        Source columns dropped because they hold one value, and that value; columns filled in are marked.
    repeated
        Keys measured more than once: how many, the rows beyond the first, and the largest ratio of two latencies.
    """

    table: pa.Table
    rows_in: int
    rows_used: int
    labels: Mapping[str, Any]
    constants: Mapping[str, Any]
    repeated: Mapping[str, Any] = field(default_factory=dict)


def convert(
    source: pa.Table, name: str, where: str, *, only: Mapping[str, str] | None = None, nccl: bool = False
) -> Converted:
    """Map one source table onto a family.

    Parameters
    ----------
    source
        Table as shipped; latency in milliseconds.
    name
        Our family.
    where
        Path of the source file, for reports.
    only
        Keep rows whose (our) column has this value; None keeps all.
    nccl
        The file holds NCCL collectives, not the engine's own all-reduce.

    Raises
    ------
    TableFormatError
        A column is missing, holds nulls, an unknown name, or varies without a place in our schema.
    """
    mapping = VARIABLE_MAP["nccl" if nccl else name]
    used = _select_graph(source, name)
    constants: dict[str, Any] = {}
    columns = _key_columns(used, name, mapping, where, constants, backend="nccl" if nccl else "custom")
    _check_rest(used, name, mapping, where, constants)
    keep = np.ones(used.num_rows, dtype=bool)
    for column, value in (only or {}).items():
        keep &= np.asarray(columns[column]) == value
    used = used.filter(pa.array(keep))
    columns = {key: np.asarray(values)[keep] for key, values in columns.items()}
    latency_ms = used.column("latency").to_numpy().astype(np.float64)
    kernels = np.asarray(used.column("kernel_source").to_pylist(), dtype=np.str_)
    table, repeated = merge_repeated(name, columns, latency_ms * MS, kernels)
    return Converted(table, source.num_rows, used.num_rows, _labels(used), constants, repeated)


def _select_graph(source: pa.Table, name: str) -> pa.Table:
    """Keep the CUDA-graph rows where a table times each all-reduce both with and without a graph."""
    if name != "comm" or "kernel_source" not in source.column_names:
        return source
    graph = pc.ends_with(source.column("kernel_source").cast(pa.string()), "_graph")
    return source.filter(graph) if pc.any(graph).as_py() else source


def _key_columns(
    source: pa.Table, name: str, mapping: Mapping[str, str], where: str, constants: dict[str, Any], backend: str
) -> dict[str, Any]:
    problems = Problems()
    columns: dict[str, Any] = {}
    for theirs in ("latency", "kernel_source", *mapping):
        ours = mapping.get(theirs, "")
        if theirs in source.column_names:
            if source.column(theirs).null_count:
                problems.add(f"{where}, column {theirs}", "null", "a value in every row")
        elif ours in _ABSENT:
            columns[ours] = np.full(source.num_rows, _ABSENT[ours], dtype=np.int64)
            constants[f"{theirs} (absent)"] = _ABSENT[ours]
        else:
            problems.add(f"{where}, column {theirs}", "none", "the column")
    problems.raise_if_any(TableFormatError)
    spec = family(name)
    for theirs, ours in mapping.items():
        if ours in columns:
            continue
        values = source.column(theirs)
        if spec.column(ours).kind == "name":
            translate = DTYPE_MAP if ours.endswith("dtype") else OP_MAP if ours == "op" else None
            columns[ours] = _translate(values.to_pylist(), translate, f"{where}, column {theirs}")
        else:
            columns[ours] = values.to_numpy().astype(np.int64)
    if "kv_len" in spec.keys:
        columns["kv_len"] = source.column("isl").to_numpy() + source.column("step").to_numpy()
    if name == "comm":
        columns["backend"] = np.full(source.num_rows, backend, dtype="U8")
    return columns


def _translate(values: list[str], table: Mapping[str, str] | None, where: str) -> Any:
    if table is None:
        return np.asarray(values, dtype=np.str_)
    unknown = sorted(set(values) - set(table))
    if unknown:
        raise TableFormatError(Problem(where, unknown[0], f"one of {', '.join(table)}"))
    return np.asarray([table[v] for v in values], dtype=np.str_)


def _check_rest(source: pa.Table, name: str, mapping: Mapping[str, str], where: str, constants: dict[str, Any]) -> None:
    """Drop what is constant; refuse a column that varies and that the schema has no place for."""
    known = {"latency", *mapping} | LABELS | _IGNORED.get(name, frozenset())
    if "kv_len" in family(name).keys:
        known |= {"step"}
    for extra in sorted(set(source.column_names) - known):
        values = pc.unique(source.column(extra)).to_pylist()
        if len(values) > 1:
            raise TableFormatError(
                Problem(f"{where}, column {extra}", f"{len(values)} different values", "a constant or a known column")
            )
        constants[extra] = values[0] if values else None


def _labels(source: pa.Table) -> dict[str, Any]:
    labels: dict[str, Any] = {}
    for column in ("framework", "version", "device", "model"):
        if column in source.column_names:
            values = sorted(map(str, pc.unique(source.column(column)).to_pylist()))
            labels[column] = values[0] if len(values) == 1 else values
    counts = pc.value_counts(source.column("kernel_source").cast(pa.string())).to_pylist()
    labels["kernel_sources"] = {c["values"]: c["counts"] for c in sorted(counts, key=lambda c: str(c["values"]))}
    return labels
