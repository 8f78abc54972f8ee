"""``mfuroof export``: a model on a GPU as a file that another simulator reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json

__all__ = ["EXAMPLES", "export"]

EXAMPLES = (
    "mfuroof export Llama-3.1-8B --gpu h100_sxm --format dynamo --out perf.npz",
    "mfuroof export Llama-3.1-70B --gpu h100_sxm --format splitwise --out p.csv",
)


def export(
    model: o.Model,
    gpu: o.Gpu,
    format: Annotated[str, typer.Option("--format", help="npz, dynamo, llmservingsim, splitwise or vidur.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write; a folder for llmservingsim and vidur.")],
    tp: o.Tp = 1,
    pp: Annotated[int, typer.Option("--pp", help="Pipeline stages.")] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Expert-parallel ranks.")] = 1,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Most new tokens of a step.")] = None,
    max_context: Annotated[int | None, typer.Option("--max-context", help="Longest context.")] = None,
    max_batch: Annotated[int | None, typer.Option("--max-batch", help="Most requests of a step.")] = None,
    engine: o.Engine = "vllm",
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    tables: o.Tables = None,
    json: o.Json = False,
) -> None:
    """Write step times as a file that another simulator reads.

    npz is our own format, documented for readers in any language; dynamo is NVIDIA Dynamo's planner profile;
    llmservingsim and vidur are folders of CSV files, splitwise is one. Files are complete or not there.
    """
    from mfuroof._boundary import choice
    from mfuroof.adapters.export import FORMATS
    from mfuroof.adapters.export import export as write
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.errors import InputError, Problem
    from mfuroof.step import StepEvaluator

    format = choice("export format", format, FORMATS)
    options = {}
    given = (("--max-tokens", max_tokens), ("--max-context", max_context), ("--max-batch", max_batch))
    for (option, value), name in zip(given, FORMATS[format].limits, strict=True):
        if value is not None and not name:
            raise InputError(Problem(option, str(value), f"no such limit, which format {format} does not have"))
        if value is not None:
            options[name] = value
    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    evaluator = StepEvaluator(
        model,
        gpu,
        tp_size=tp,
        pp_size=pp,
        ep_size=ep,
        cost=family,  # type: ignore[arg-type]
        engine=engine,
        tables=tables,
        params=params,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
    )
    written = write(evaluator, format, out, **options)
    files = sorted(p for p in written.rglob("*") if p.is_file()) if written.is_dir() else [written]
    if json:
        print_json({"format": format, "files": [str(p) for p in files]})
    else:
        for path in files:
            print(path)
