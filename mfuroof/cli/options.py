"""Options that several commands share; one spelling and one text each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "AttentionDtype",
    "Calibration",
    "CostName",
    "Engine",
    "GemmDtype",
    "Gpu",
    "Json",
    "KvCacheDtype",
    "KvDtype",
    "MemoryUtilization",
    "Missing",
    "Model",
    "MoeDtype",
    "Precision",
    "Preset",
    "Tables",
    "Tp",
    "WeightDtype",
    "complete_gpu",
    "complete_model",
    "complete_precision",
]


def complete_gpu(incomplete: str) -> list[str]:
    """Return the GPUs a shell offers for what was typed."""
    from mfuroof.hardware import known_hardware

    return [name for name in known_hardware() if name.startswith(incomplete.lower())]


def complete_model(incomplete: str) -> list[str]:
    """Return the models a shell offers for what was typed."""
    from mfuroof.models import known_models

    return [name for name in known_models() if name.lower().startswith(incomplete.lower())]


def complete_precision(incomplete: str) -> list[str]:
    """Return the runtime precisions a shell offers for what was typed."""
    from mfuroof.precision import PRESETS

    return [name for name in PRESETS if name.startswith(incomplete.lower())]


def _usable_share(value: float) -> float:
    from mfuroof._boundary import Problems

    problems = Problems()
    problems.number("--memory-utilization", value, 0.0, 1.0, open_low=True)
    problems.raise_if_any()
    return value


def _precision_field(option: str, what: str) -> Any:
    return typer.Option(option, help=f"{what}; overrides --precision.", rich_help_panel="Runtime precision")


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Built-in model, or the path of a config.json or its folder.",
        autocompletion=complete_model,
    ),
]
Gpu = Annotated[str, typer.Option("--gpu", help="GPU, see mfuroof gpus.", autocompletion=complete_gpu)]
Tp = Annotated[int, typer.Option("--tp", help="Tensor-parallel ranks.")]
Engine = Annotated[
    str, typer.Option("--engine", help="Engine whose kernels are used: vllm, sglang, trtllm, vllm_2023, own.")
]
CostName = Annotated[
    str | None,
    typer.Option("--cost", help="kernels, mfu_table or constant_mfu; kernels unless a preset says otherwise."),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        help="Conventions of another tool: aiconfigurator, blis, blis-calibrated, blis-mfu, blis-mfu-floor, infersim.",
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option("--calibration", help="File of mfuroof calibrate: its overheads in place of the engine's own."),
]
Missing = Annotated[
    str | None,
    typer.Option("--missing", help="Where no table covers an operation: raise, roofline or nan; raise by default."),
]
WeightDtype = Annotated[
    str | None,
    typer.Option("--weight-dtype", help="Format of the weights, such as fp8 or w4a16; the checkpoint's own."),
]
KvDtype = Annotated[str | None, typer.Option("--kv-dtype", help="Format of the KV cache; the checkpoint's own.")]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="PRESET",
        help="What the engine is launched with: default, kv-cache-fp8, dynamic-fp8, bf16-stable, aggressive-moe.",
        autocompletion=complete_precision,
        rich_help_panel="Runtime precision",
    ),
]
GemmDtype = Annotated[str | None, _precision_field("--gemm-dtype", "Of the linear layers, such as fp8")]
KvCacheDtype = Annotated[str | None, _precision_field("--kvcache-dtype", "Of the KV cache, such as fp8_e4m3")]
AttentionDtype = Annotated[str | None, _precision_field("--attention-dtype", "Of the attention arithmetic")]
MoeDtype = Annotated[str | None, _precision_field("--moe-dtype", "Of the routed experts")]
MemoryUtilization = Annotated[
    float,
    typer.Option(
        "--memory-utilization", help="Share of GPU memory the engine may use, in (0, 1].", callback=_usable_share
    ),
]
Tables = Annotated[
    Path | None,
    typer.Option("--tables", help="Your own tables: kernels of one GPU, or MFU files for cost mfu_table."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in base units.")]
