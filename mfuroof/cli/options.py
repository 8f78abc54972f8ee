"""Options that several commands share; one spelling and one text each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "CostName",
    "Engine",
    "Gpu",
    "Json",
    "KvDtype",
    "MemoryUtilization",
    "Missing",
    "Model",
    "Preset",
    "Tables",
    "Tp",
    "WeightDtype",
    "complete_gpu",
    "complete_model",
]


def complete_gpu(incomplete: str) -> list[str]:
    """Return the GPUs a shell offers for what was typed."""
    from mfuroof.hardware import known_hardware

    return [name for name in known_hardware() if name.startswith(incomplete.lower())]


def complete_model(incomplete: str) -> list[str]:
    """Return the models a shell offers for what was typed."""
    from mfuroof.models import known_models

    return [name for name in known_models() if name.lower().startswith(incomplete.lower())]


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
    str, typer.Option("--engine", help="Engine whose kernels are used: vllm, sglang, trtllm, vllm_2023.")
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
Missing = Annotated[
    str | None,
    typer.Option("--missing", help="Where no table covers an operation: raise, roofline or nan; raise by default."),
]
WeightDtype = Annotated[
    str | None,
    typer.Option("--weight-dtype", help="Format of the weights, such as fp8 or w4a16; the checkpoint's own."),
]
KvDtype = Annotated[str | None, typer.Option("--kv-dtype", help="Format of the KV cache; the checkpoint's own.")]
MemoryUtilization = Annotated[
    float, typer.Option("--memory-utilization", help="Share of GPU memory the engine may use, in (0, 1].")
]
Tables = Annotated[
    Path | None,
    typer.Option("--tables", help="Your own tables: kernels of one GPU, or MFU files for cost mfu_table."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON in base units.")]
