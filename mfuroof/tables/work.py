"""What one benchmark row does: useful FLOPs and the bytes it cannot avoid, from its shape alone.

FLOPs follow the convention of the layout (`mfuroof.tables.bench_layout`): a multiply-add is two; prefill attention is
the causal half of the square; decode attention reads every cached token; a grouped GEMM counts routed tokens without
padding. Bytes are the operands and the result once, in the dtypes of the kernels that were measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof.precision import kv_format_of
from mfuroof.tables.bench_file import BenchFile

__all__ = ["file_bytes", "file_flops", "grouped_flops", "key_bytes", "key_flops", "kv_bytes", "rank_key"]


def file_flops(file: BenchFile) -> dict[str, F64]:
    """Return useful FLOPs of every row (n,), by the name of the MFU column they belong to."""
    if file.layout.family == "gdn":
        return {}
    shape = {column.name: file.count(column.name) for column in file.layout.columns if column.kind == "count"}
    if file.layout.family == "grouped_gemm":
        tokens = shape[file.layout.axes[0]]
        return {f"{name}_mfu": grouped_flops(name, shape, tokens) for name in ("up", "down")}
    return {"mfu": key_flops(file.layout.family, file.layout.phase, rank_key(file), shape)}


def rank_key(file: BenchFile) -> tuple[int, ...]:
    """Return the key with the heads of one rank: a file with ``-tp<N>`` names those of the model."""
    if file.tp is None or not file.layout.key:
        return file.key
    sharded = ("num_attention_heads", "num_key_value_heads")
    return tuple(
        max(1, value // file.tp) if name in sharded else value
        for name, value in zip(file.layout.key, file.key, strict=True)
    )


def key_flops(family: str, phase: str, key: tuple[int, ...], shape: Mapping[str, Any]) -> F64:
    """Return useful FLOPs of shapes of one configuration.

    Parameters
    ----------
    family, phase, key
        Of a layout; heads are those of one rank.
    shape
        Arrays by column name. [tokens, sequences]
    """
    if family == "gemm":
        return np.asarray(2.0 * shape["m"] * shape["k"] * shape["n"])
    if family == "dsa_logits":
        heads, dim = key
        return np.asarray(2.0 * _pairs(phase, shape) * heads * dim)
    if family == "mha":
        heads, _, dim = key
        width = 2.0 * heads * (dim + dim)  # scores and values
    elif family == "mla" and phase == "prefill":
        heads, nope, rope = key
        width = 2.0 * heads * (nope + rope + nope)  # the value head is as wide as the part without rotary embedding
    elif family == "mla":
        heads, rank, rope = key
        width = 2.0 * heads * (rank + rope + rank)  # absorbed
    else:
        heads, dim, top_k = key
        width = 2.0 * heads * (dim + dim - 64) * top_k  # sparse attention over the latent; 64 is its rotary part
        return np.asarray(width * shape["s_q" if phase == "prefill" else "batch_size"])
    if phase == "prefill":
        return np.asarray(width * shape["seq_len"] * shape["seq_len"] / 2.0)
    return np.asarray(width * shape["batch_size"] * shape["kv_len"])


def _pairs(phase: str, shape: Mapping[str, Any]) -> Any:
    """Query-key pairs that an indexer scores: the causal ones in prefill, all of them in decode."""
    if phase == "prefill":
        new, total = shape["s_q"], shape["s_kv"]
        return new * (total - new) + new * (new + 1.0) / 2.0
    return shape["batch_size"] * shape["next_n"] * shape["s_kv"]


def grouped_flops(projection: str, shape: Mapping[str, Any], tokens: Any) -> F64:
    """Return useful FLOPs of one rank's routed experts: ``tokens`` per GPU, each to ``num_experts_per_tok`` experts."""
    matrices = 2.0 if projection == "up" else 1.0  # gate and up are one GEMM
    routed = tokens * shape["num_experts_per_tok"]
    return np.asarray(2.0 * routed * shape["hidden_size"] * matrices * shape["intermediate_size"])


def kv_bytes(kv_dtype: str) -> float:
    """Return bytes per cached element. [bytes]"""
    return float(kv_format_of(kv_dtype).bytes_per_element)


def file_bytes(file: BenchFile) -> F64 | None:
    """Return the bytes that every row (n,) moves at least, or None for a family whose shape does not tell them."""
    shape = {column.name: file.count(column.name) for column in file.layout.columns if column.kind == "count"}
    per_element: Any = 2.0
    if "kv_dtype" in file.columns:
        per_element = np.array([kv_bytes(dtype) for dtype in file.columns["kv_dtype"]])
    return key_bytes(file.layout.family, file.layout.phase, rank_key(file), shape, per_element)


def key_bytes(
    family: str, phase: str, key: tuple[int, ...], shape: Mapping[str, Any], kv_bytes_per_element: Any = 2.0
) -> F64 | None:
    """Return the bytes that shapes of one configuration move at least; parameters as `key_flops`.

    None for grouped GEMMs (which experts are hit is random) and for sparse attention.
    """
    if family == "gemm":
        m, k, n = shape["m"], shape["k"], shape["n"]
        return np.asarray(m * k + k * n + 2.0 * m * n)  # FP8 operands, 16-bit result
    if family not in ("mha", "mla"):
        return None
    heads, other, dim = key
    if phase == "prefill":  # 16-bit queries, keys, values and outputs
        widths = 2 * heads * dim + 2 * other * dim if family == "mha" else heads * (2 * (other + dim) + 2 * other)
        return np.asarray(2.0 * widths * shape["seq_len"])
    cached = 2 * other * dim if family == "mha" else other + dim
    queries = 4.0 * heads * (dim if family == "mha" else other)
    return np.asarray(shape["batch_size"] * (shape["kv_len"] * cached * kv_bytes_per_element + queries))
