"""``mfuroof step``: one step and what it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mfuroof.breakdown import StepResult
    from mfuroof.precision import QuantConfig
    from mfuroof.step import StepEvaluator

__all__ = ["EXAMPLES", "step"]

EXAMPLES = (
    "mfuroof step Qwen/Qwen3-8B --gpu l40s --decode-batch 32 --decode-context 999",
    "mfuroof step Qwen/Qwen3-32B --gpu h200_sxm --tp 2 --prefill-tokens 2048",
    "mfuroof step Qwen/Qwen3-8B --gpu h100_sxm --decode-batch 8 --kv-dtype fp8",
    "mfuroof step Qwen/Qwen3-8B --gpu l40s --decode-batch 8 --gemm-dtype fp8",
    "mfuroof step Qwen/Qwen3-8B --gpu h100 --decode-batch 8 --preset blis --json",
)
FAR_OCTAVES = 3.0
"""From eight times the nearest measured size on, a time is a trend carried on and no prediction."""
SHARED_EXPERTS = ("shared_gate_up_gemm", "shared_down_gemm")
"""Components that run on a second stream beside the routed experts."""


def step(
    model: o.Model,
    gpu: o.Gpu,
    tp: o.Tp = 1,
    pp: Annotated[int, typer.Option("--pp", help="Pipeline stages.")] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Expert-parallel ranks.")] = 1,
    dp: Annotated[int, typer.Option("--dp", help="Attention data-parallel ranks, each with such a batch.")] = 1,
    decode_batch: Annotated[int | None, typer.Option("--decode-batch", help="Decode requests of the step.")] = None,
    decode_context: Annotated[int, typer.Option("--decode-context", help="Tokens each has in the KV cache.")] = 0,
    prefill_batch: Annotated[
        int | None, typer.Option("--prefill-batch", help="Prefill requests; 1 if there are prefill tokens.")
    ] = None,
    prefill_tokens: Annotated[int, typer.Option("--prefill-tokens", help="New tokens of each prefill request.")] = 0,
    prefill_context: Annotated[
        int, typer.Option("--prefill-context", help="Tokens each prefill request has in the KV cache.")
    ] = 0,
    engine: o.Engine = "vllm",
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    tables: o.Tables = None,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    weight_bytes_per_param: Annotated[
        float | None, typer.Option("--weight-bytes-per-param", help="Bytes of one weight, overriding detection.")
    ] = None,
    mixed_batch_penalty: Annotated[
        float | None, typer.Option("--mixed-batch-penalty", help="Compute lost in mixed steps, in [0, 1].")
    ] = None,
    overlap_penalty: Annotated[
        float | None, typer.Option("--overlap-penalty", help="Memory time not hidden by compute, in [0, 1].")
    ] = None,
    precision: o.Precision = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    attention_dtype: o.AttentionDtype = None,
    moe_dtype: o.MoeDtype = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    json: o.Json = False,
) -> None:
    """Price one engine step and show its breakdown."""
    from mfuroof.batch import StepBatch
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.errors import InputError, Problem
    from mfuroof.precision import runtime_of
    from mfuroof.step import StepEvaluator

    if decode_batch is None and prefill_batch is None and not prefill_tokens:
        raise InputError(Problem("the step", "no requests", "--decode-batch or --prefill-tokens"))
    family, params = cost_and_params(cost, preset, missing, mixed_batch_penalty, overlap_penalty, calibration)
    asked = runtime_of(precision, gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype, kv_dtype=kv_dtype)
    shape = {
        "decode_batch": decode_batch or 0,
        "decode_context": decode_context,
        "prefill_batch": int(prefill_tokens > 0) if prefill_batch is None else prefill_batch,
        "prefill_new_tokens": prefill_tokens,
        "prefill_context": prefill_context,
    }
    batch = StepBatch.uniform(**shape)
    evaluator = StepEvaluator(
        model,
        gpu,
        tp,
        pp,
        ep,
        dp,
        cost=family,  # type: ignore[arg-type]
        engine=engine,
        tables=tables,
        params=params,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
        weight_bytes_per_param=weight_bytes_per_param,
        runtime=asked.precision if asked else None,
    )
    record = _record(evaluator, evaluator.evaluate(batch), shape, asked)
    _warn_if_too_large(evaluator, record, batch, memory_utilization)
    if json:
        print_json(record)
    else:
        _print(record)


def _record(
    evaluator: StepEvaluator, result: StepResult, shape: dict[str, int], asked: QuantConfig | None
) -> dict[str, Any]:
    """Return everything about the step in base units.

    ``tokens_per_s_per_gpu`` counts tokens that the step emits, one a decode request and one a prompt;
    ``prefill_tokens_per_s_per_gpu`` those of the prompts that it computes.
    """
    from dataclasses import asdict

    from mfuroof.core.sources import Source

    time = float(result.step_time_s[0])
    emitted = shape["decode_batch"] + (shape["prefill_batch"] if shape["prefill_new_tokens"] else 0)
    computed = shape["prefill_batch"] * shape["prefill_new_tokens"]
    per_gpu = evaluator.parallel.dp_size / evaluator.parallel.num_gpus / time if time > 0 else 0.0
    components = {
        name: {
            "time_s": float(part[0]),
            "share": float(part[0]) / time if time > 0 else 0.0,
            "flops": float(result.op_flops[name][0]) if name in result.op_flops else None,
            "bytes": float(result.op_bytes[name][0]) if name in result.op_bytes else None,
        }
        for name, part in result.op_time_s.items()
    }
    return {
        "model": evaluator.model.name,
        "gpu": evaluator.hardware.name,
        **asdict(evaluator.parallel),
        "engine": evaluator.engine,
        "cost": evaluator.cost,
        "params": evaluator.params.changed(),
        "runtime": {"name": asked.name, **asked.precision.to_dict()} if asked else None,
        **shape,
        "step_time_s": time,
        "tokens_per_s_per_gpu": emitted * per_gpu,
        "prefill_tokens_per_s_per_gpu": computed * per_gpu,
        "bound": result.bound_names[0],
        "source": Source(int(result.source[0])).name.lower(),
        "distance_octaves": float(result.distance_octaves[0]),
        "resource_time_s": {name: float(part[0]) for name, part in result.resource_time_s.items()},
        "components": components,
        "overlapped": _overlapped(evaluator, components),
    }


def _overlapped(evaluator: StepEvaluator, components: Iterable[str]) -> list[str]:
    """Return components of which only what outlasts the routed experts counts."""
    if evaluator.cost != "kernels" or not evaluator.params.shared_experts_overlap:
        return []
    return [name for name in components if name in SHARED_EXPERTS]


def _warn_if_too_large(evaluator: StepEvaluator, record: dict[str, Any], batch: Any, utilization: float) -> None:
    """Add ``fits`` to the record, and warn with the numbers where the answer is no."""
    import warnings

    from mfuroof.errors import MfuroofWarning
    from mfuroof.sweep.grid import SHAPE_AXES
    from mfuroof.sweep.memory import Memory
    from mfuroof.units import GIB

    memory = Memory.of(evaluator, utilization)
    fits = memory.fits({name: getattr(batch, name) for name in SHAPE_AXES})
    record["fits"] = None if fits is None else bool(fits[0])
    if memory.shortfall:
        warnings.warn(f"the model does not fit: it {memory.shortfall}", MfuroofWarning, stacklevel=2)
    elif record["fits"] is False:
        text = f"the step does not fit: its requests' caches exceed the {memory.kv_bytes / GIB:.1f} GiB left per GPU"
        far = record["distance_octaves"]
        if far >= FAR_OCTAVES:
            times = f"{far:.1f} octaves ({2.0**far:.2g} times)"
            text += f"; it lies {times} from what was measured: the time is no prediction"
        warnings.warn(text, MfuroofWarning, stacklevel=2)


def _print(record: dict[str, Any]) -> None:
    from mfuroof.units import GB, MS, TERA

    parts = []
    if record["decode_batch"]:
        parts.append(f"{record['decode_batch']} decode at context {record['decode_context']}")
    if record["prefill_batch"] and record["prefill_new_tokens"]:
        tokens, context = record["prefill_new_tokens"], record["prefill_context"]
        parts.append(f"{record['prefill_batch']} prefill of {tokens} at context {context}")
    degrees = [f"{name} {record[f'{name}_size']}" for name in ("tp", "pp", "ep", "dp")]
    spread = ", ".join(d for d in degrees if not d.endswith(" 1")) or "tp 1"
    print(f"{record['model']} on {record['gpu']}, {spread}, {record['cost']} ({record['engine']})")
    if record["runtime"]:
        print(f"launched with {record['runtime']['name']}")
    print(" + ".join(parts) or "an empty step")
    work = any(c["flops"] is not None for c in record["components"].values())
    head = ("component", "time_ms", "share", *(("TFLOP/GPU", "GB/GPU") if work else ()))
    rows = []
    for name, c in record["components"].items():
        row = [name, f"{c['time_s'] / MS:.4f}", f"{c['share']:.1%}"]
        rows.append([*row, _scaled(c["flops"], TERA), _scaled(c["bytes"], GB)] if work else row)
    rows.append(["step", f"{record['step_time_s'] / MS:.4f}", *[""] * (len(head) - 2)])
    print_table("", head, rows)
    far = record["distance_octaves"]
    beyond = f", {far:.2f} octaves from data" if far >= 0.005 else ""
    print(f"bound: {record['bound']}   source: {record['source']}{beyond}")
    if record["overlapped"]:
        print("overlapped: shared experts, beside the routed ones")
    print(f"output tokens: {record['tokens_per_s_per_gpu']:,.1f} /s per GPU, one a request")
    if record["prefill_tokens_per_s_per_gpu"]:
        print(f"prompt tokens: {record['prefill_tokens_per_s_per_gpu']:,.1f} /s per GPU")


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:,.3f}"
