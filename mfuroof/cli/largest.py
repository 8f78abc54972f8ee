"""``mfuroof largest``: the largest batch, context or chunk whose step stays under a time limit."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.answers import print_answer

__all__ = ["EXAMPLES", "largest"]

EXAMPLES = (
    "mfuroof largest meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 4 --limit 30ms --decode-context 1024:32768:x2",
    "mfuroof largest Qwen/Qwen3-8B --gpu l40s --axis prefill_new_tokens --limit 100ms --decode-batch 16"
    " --decode-context 4096",
)


def _range(option: str, what: str) -> Any:
    return typer.Option(option, help=what, metavar="RANGE", rich_help_panel="The rest of the step")


def largest(
    model: o.Model,
    gpu: o.Gpu,
    limit: Annotated[str, typer.Option("--limit", help="Time a step may take, such as 30ms.")],
    axis: Annotated[
        str,
        typer.Option(
            "--axis",
            help="decode_batch, decode_context, prefill_batch, prefill_new_tokens or prefill_context.",
        ),
    ] = "decode_batch",
    tp: o.Tp = 1,
    decode_batch: Annotated[str | None, _range("--decode-batch", "Decode requests.")] = None,
    decode_context: Annotated[str | None, _range("--decode-context", "Tokens each has in the KV cache.")] = None,
    prefill_batch: Annotated[str | None, _range("--prefill-batch", "Prefill requests.")] = None,
    prefill_tokens: Annotated[str | None, _range("--prefill-tokens", "New tokens of each.")] = None,
    prefill_context: Annotated[str | None, _range("--prefill-context", "Tokens each has in the KV cache.")] = None,
    fit: Annotated[bool, typer.Option("--fit", help="The requests must fit the GPU memory as well.")] = False,
    most: Annotated[int | None, typer.Option("--most", help="Largest value looked at.")] = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    engine: o.Engine = "vllm",
    cost: o.CostName = None,
    preset: o.Preset = None,
    calibration: o.Calibration = None,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    json: o.Json = False,
) -> None:
    """Find the largest batch, context or chunk of a prompt whose step stays under a time limit.

    Several values of the rest of the step are answered together, one row for each combination. The answer is exact:
    the next value takes longer.
    """
    import numpy as np

    from mfuroof.cli.costs import cost_and_params
    from mfuroof.cli.quantities import seconds
    from mfuroof.queries import largest as found
    from mfuroof.step import StepEvaluator
    from mfuroof.sweep import axis_values

    texts = {
        "decode_batch": decode_batch,
        "decode_context": decode_context,
        "prefill_batch": prefill_batch,
        "prefill_new_tokens": prefill_tokens,
        "prefill_context": prefill_context,
    }
    values = {name: axis_values(name, text) for name, text in texts.items() if text is not None}
    grid: dict[str, Any] = dict(zip(values, np.ix_(*values.values()), strict=True))
    family, params = cost_and_params(cost, preset, calibration=calibration)
    evaluator = StepEvaluator(
        model,
        gpu,
        tp,
        cost=family,  # type: ignore[arg-type]
        engine=engine,
        params=params,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
    )
    answer = found(
        evaluator,
        axis,
        seconds("--limit", limit),
        most=most,
        memory_utilization=memory_utilization if fit else None,
        **grid,
    )
    print_answer(answer, json=json)
