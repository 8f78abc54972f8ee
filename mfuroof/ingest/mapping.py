"""What the tables of AIConfigurator are called and what their names mean, family by family.

The source measures in milliseconds, calls the phases context and generation, counts heads per GPU, and stores the
cached length of a decode step in ``step`` with ``isl`` = 1, so that ``kv_len`` = ``isl`` + ``step``. Its message sizes
are in elements of the whole vector: what every rank ends with for all-reduce and all-gather, what it starts with
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "ABSENT",
    "CONTEXTS",
    "DTYPE_MAP",
    "IGNORED",
    "LABELS",
    "NCCL_TABLE",
    "OP_MAP",
    "PHASE_MAP",
    "SOURCE_TABLES",
    "VARIABLE_MAP",
    "SourceTable",
]


@dataclass(frozen=True)
class SourceTable:
    """Where a family lies in the source tree: ``data/<gpu>/<folder>/<backend>/<version>/<file>``.

    ``engines`` names the engines whose table says something; empty for all.
    """

    folder: str
    file: str
    engines: tuple[str, ...] = ()


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
        "dsa_module_prefill": SourceTable("sparse_attention", "dsa_context_module_perf.parquet"),
        "dsa_module_decode": SourceTable("sparse_attention", "dsa_generation_module_perf.parquet"),
        "gdn": SourceTable("linear_attention", "gdn_perf.parquet"),
        "mamba2": SourceTable("linear_attention", "mamba2_perf.parquet"),
        # A given scale saves SGLang nothing and vLLM less than a microsecond, below what was measured in places.
        "act_scale": SourceTable("quantize", "computescale_perf.parquet", ("trtllm",)),
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
        "dsa_module_prefill": {**_MODULE, "step": "context_len", "isl": "new_tokens"},
        "dsa_module_decode": _MODULE,
        "gdn": {
            "phase": "phase",
            "num_k_heads": "num_key_heads",
            "num_v_heads": "num_value_heads",
            "head_k_dim": "key_head_dim",
            "head_v_dim": "value_head_dim",
            "d_conv": "conv_kernel",
            "batch_size": "batch_size",
            "seq_len": "new_tokens",
        },
        "mamba2": {
            "phase": "phase",
            "nheads": "num_heads",
            "head_dim": "head_dim",
            "d_state": "state_size",
            "n_groups": "n_groups",
            "d_conv": "conv_kernel",
            "batch_size": "batch_size",
            "seq_len": "new_tokens",
        },
        "act_scale": {"quant_dtype": "dtype", "k": "k", "m": "m"},
        "comm": {"op_name": "op", "allreduce_dtype": "dtype", "num_gpus": "num_gpus", "message_size": "elements"},
        "nccl": {"op_name": "op", "nccl_dtype": "dtype", "num_gpus": "num_gpus", "message_size": "elements"},
    }
)
"""Source column -> our column, per family. What is missing here is derived (`convert`), a label or a constant."""

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

PHASE_MAP: Mapping[str, str] = MappingProxyType({"context": "prefill", "generation": "decode"})
"""Source phase -> ours."""

LABELS = frozenset(
    (
        "framework",
        "version",
        "device",
        "op_name",
        "kernel_source",
        "model",
        "model_name",
        "power",
        "power_limit",
        "backend",
        "implementation",
    )
)
"""Source columns that name or accompany a measurement without distinguishing kernels of one key."""

IGNORED: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        # The kernel sees its own heads only: rows of different tensor-parallel degree with equal heads repeat one.
        "mla_prefill": frozenset({"tp_size"}),
        "mla_decode": frozenset({"tp_size"}),
        "dsa_module_prefill": frozenset({"tp_size"}),
        "dsa_module_decode": frozenset({"tp_size"}),
        # The kernels see heads, not the width of the model around them; num_tokens is batch_size * seq_len.
        "gdn": frozenset({"d_model", "num_tokens"}),
        # Only the convolution was measured, which does not see the chunks of the scan.
        "mamba2": frozenset({"d_model", "num_tokens", "chunk_size"}),
    }
)
"""Columns that vary without changing the kernel: rows that differ in them alone repeat one measurement."""

ABSENT: Mapping[str, int] = MappingProxyType({"sliding_window": 0})
"""Values of columns that older slots lack: they measured full attention only."""

CONTEXTS = (0, 128, 2048, 8192, 32_768, 131_072)
"""Cached lengths kept of the sparse-attention prefill tables, which hold up to 66 of them. [tokens]

Beyond the 2,048 tokens its indexer selects, the time of a block is close to linear in the cached length.
"""
