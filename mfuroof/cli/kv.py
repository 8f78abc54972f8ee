"""``mfuroof kv``: how many tokens and sequences fit beside the weights."""

from __future__ import annotations

from typing import Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

__all__ = ["EXAMPLES", "kv"]

EXAMPLES = (
    "mfuroof kv meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 2,4,8",
    "mfuroof kv Qwen/Qwen3-32B --gpu h200_sxm --kv-dtype fp8 --seq-len 8192",
    "mfuroof kv Qwen/Qwen3-30B-A3B --gpu h100_sxm --precision dynamic-fp8",
)


def kv(
    model: o.Model,
    gpu: o.Gpu,
    tp: Annotated[str, typer.Option("--tp", help="Tensor-parallel ranks, one or several.", metavar="RANGE")] = "1",
    seq_len: Annotated[int | None, typer.Option("--seq-len", help="Also count sequences of this many tokens.")] = None,
    block_size: Annotated[int, typer.Option("--block-size", help="Tokens of one KV block.")] = 16,
    memory_utilization: o.MemoryUtilization = 0.9,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    precision: o.Precision = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    moe_dtype: o.MoeDtype = None,
    json: o.Json = False,
) -> None:
    """Show how much KV cache fits beside the weights, per tensor-parallel degree."""
    from mfuroof.capacity import kv_capacity
    from mfuroof.models import ModelConfig
    from mfuroof.precision import runtime_of
    from mfuroof.sweep.axes import axis_values
    from mfuroof.units import GIB

    asked = runtime_of(precision, gemm_dtype, kvcache_dtype, None, moe_dtype, kv_dtype=kv_dtype)
    priced = ModelConfig.from_hf(model).with_precision(weight_dtype=weight_dtype, kv_dtype=kv_dtype)
    room = kv_capacity(
        asked.precision.applied(priced) if asked else priced,
        gpu,
        axis_values("--tp", tp),
        block_size=block_size,
        memory_utilization=memory_utilization,
        seq_len=seq_len,
    )
    columns = room.to_dict()
    records = [{name: column[i] for name, column in columns.items()} for i in range(room.tp_size.size)]
    if json:
        print_json(records)
        return
    rows = []
    for r in records:
        smallest = r["smallest_tp_that_fits"]
        fits = "yes" if r["fits"] else f"needs tp {smallest}" if smallest else "at no tp"
        beside = r["activation_bytes"] + r["reserved_bytes"]
        row = [f"tp {r['tp_size']}", f"{r['weight_bytes'] / GIB:.2f}", f"{beside / GIB:.2f}"]
        row += [f"{r['kv_capacity_tokens']:,}", f"{r['num_kv_blocks']:,}"]
        rows.append([*row, f"{r['max_sequences']:,}", fits] if seq_len else [*row, fits])
    head = ["ranks", "weights GiB", "beside GiB", "KV tokens", "KV blocks"]
    launched = f" with {asked.name}" if asked else ""
    of_what = f"blocks of {block_size} tokens, {memory_utilization:g} of the memory"
    title = f"{room.model} on {room.gpu}{launched}, {of_what}"
    print_table(title, [*head, *(["sequences"] if seq_len else []), "fits"], rows)
    print("GiB per GPU; beside: activations and reserves")
