"""``mfuroof plot``: figures as PNG, SVG or PDF files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.command import add_command
from mfuroof.cli.figures import Out, Title, evaluator_of, given_keys, name_of, write_figure

if TYPE_CHECKING:
    from mfuroof.batch import StepBatch

__all__ = ["EXAMPLES", "app", "breakdown", "crossover", "heatmap", "pareto", "roofline", "sensitivity", "steps"]

EXAMPLES = {
    "roofline": ("mfuroof plot roofline Qwen/Qwen3-8B --gpu h100_sxm --decode-batch 64 -o r.png",),
    "breakdown": ("mfuroof plot breakdown Qwen/Qwen3-32B --gpu h100_sxm --tp 2 --decode-batch 1:512:x2 -o b.svg",),
    "heatmap": (
        "mfuroof plot heatmap gemm --gpu h100_sxm dtype=bf16 k=4096 --mfu -o g.png",
        "mfuroof plot heatmap attn_decode --gpu l40s kv_dtype=bf16 ... -o a.png",
    ),
    "steps": ("mfuroof plot steps Qwen/Qwen3-32B --gpu h200_sxm -o steps.png",),
    "pareto": ("mfuroof plot pareto Qwen/Qwen3-32B --gpu h100_sxm,h200_sxm --tp 1,2,4 -o front.svg",),
    "sensitivity": ("mfuroof plot sensitivity Qwen/Qwen3-32B --gpu h100_sxm --decode-batch 64 -o tornado.png",),
    "crossover": ("mfuroof plot crossover Qwen/Qwen3-8B --gpu h100_sxm --weight-dtype own,fp8,int4_wo -o c.png",),
}

DecodeBatch = Annotated[str, typer.Option("--decode-batch", help="Decode requests of a step.", metavar="RANGE")]
Context = Annotated[int, typer.Option("--decode-context", help="Tokens each has in the KV cache.")]
PrefillTokens = Annotated[int, typer.Option("--prefill-tokens", help="New tokens of a prompt beside them.")]


def _batch(decode_batch: str, context: int, prefill_tokens: int) -> StepBatch:
    from mfuroof.batch import StepBatch
    from mfuroof.sweep.axes import axis_values

    return StepBatch.uniform(
        axis_values("--decode-batch", decode_batch),
        context,
        int(prefill_tokens > 0),
        prefill_tokens,
    )


def _shape(context: int, prefill_tokens: int) -> str:
    return f"context {context:,}" + (f", a prompt of {prefill_tokens:,}" if prefill_tokens else "")


def roofline(
    model: o.Model,
    gpu: o.Gpu,
    out: Out,
    decode_batch: Annotated[int, typer.Option("--decode-batch", help="Decode requests of the step.")] = 64,
    decode_context: Context = 4096,
    prefill_tokens: PrefillTokens = 0,
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Place the operations of one step under the roofs of its GPU."""
    from mfuroof import plots

    evaluator = evaluator_of(model, gpu, tp, engine, weight_dtype, kv_dtype)
    result = evaluator.evaluate(_batch(str(decode_batch), decode_context, prefill_tokens))
    text = title or f"{name_of(evaluator)}: {decode_batch} decode at {_shape(decode_context, prefill_tokens)}"
    write_figure(out, plots.roofline(result, evaluator.hardware, title=text), json=json)


def breakdown(
    model: o.Model,
    gpu: o.Gpu,
    out: Out,
    decode_batch: DecodeBatch = "1:512:x2",
    decode_context: Context = 4096,
    prefill_tokens: PrefillTokens = 0,
    relative: Annotated[bool, typer.Option("--relative", help="Draw shares of the step, not times.")] = False,
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw what steps of several batch sizes are made of."""
    from mfuroof import plots

    evaluator = evaluator_of(model, gpu, tp, engine, weight_dtype, kv_dtype)
    result = evaluator.evaluate(_batch(decode_batch, decode_context, prefill_tokens))
    text = title or f"{name_of(evaluator)}, {_shape(decode_context, prefill_tokens)}"
    write_figure(out, plots.breakdown(result, relative=relative, title=text), json=json)


def heatmap(
    family: Annotated[str, typer.Argument(help="Table family: gemm, attn_prefill, attn_decode, moe and others.")],
    gpu: o.Gpu,
    out: Out,
    keys: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Which slice of it.")] = None,
    engine: o.Engine = "vllm",
    mfu: Annotated[bool, typer.Option("--mfu", help="Draw MFU (of gemm and attention), not latency.")] = False,
    rule: Annotated[str, typer.Option("--rule", help="Lookup rule, see mfuroof lookup.")] = "linear",
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw a measured table with its points, and what they cover."""
    from mfuroof import plots
    from mfuroof.hardware import get_hardware
    from mfuroof.tables.store import load_tables

    device = get_hardware(gpu)
    tables = load_tables(device.tables or device.name, engine)
    where = given_keys(family, keys or [])
    peaks = device if mfu else None
    drawn = plots.kernel_heatmap(tables, family, mfu_of=peaks, rule=rule, title=title or "", **where)
    write_figure(out, drawn, json=json)


def steps(
    model: o.Model,
    gpu: o.Gpu,
    out: Out,
    decode_batch: DecodeBatch = "1:1024:log64",
    decode_context: Annotated[
        str, typer.Option("--decode-context", help="Tokens each has in the KV cache.", metavar="RANGE")
    ] = "64:131072:log64",
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw the time of decode steps over batch and context, and where it is measured."""
    from mfuroof import plots
    from mfuroof.sweep.axes import axis_values

    evaluator = evaluator_of(model, gpu, tp, engine, weight_dtype, kv_dtype)
    axes = axis_values("--decode-batch", decode_batch), axis_values("--decode-context", decode_context)
    write_figure(out, plots.step_heatmap(evaluator, *axes, title=title or name_of(evaluator)), json=json)


def pareto(
    model: o.Model,
    gpu: Annotated[str, typer.Option("--gpu", help="GPUs, comma-separated.", autocompletion=o.complete_gpu)],
    out: Out,
    tp: Annotated[str, typer.Option("--tp", help="Tensor-parallel ranks.", metavar="RANGE")] = "1,2,4,8",
    input_len: Annotated[int, typer.Option("--input-len", "--isl", help="Prompt tokens.")] = 1024,
    output_len: Annotated[int, typer.Option("--output-len", "--osl", help="Generated tokens.")] = 256,
    concurrency: Annotated[
        str, typer.Option("--concurrency", help="Requests in flight.", metavar="RANGE")
    ] = "1:512:x2",
    engine: o.Engine = "vllm",
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw throughput against speed of a stream, and the best of each GPU.

    Configurations that do not fit their GPUs are left out.
    """
    import warnings

    import numpy as np

    from mfuroof import plots
    from mfuroof.errors import MfuroofWarning
    from mfuroof.serving import estimate
    from mfuroof.sweep.axes import axis_values

    x, y, groups = [], [], []
    clients = axis_values("--concurrency", concurrency)
    for name in gpu.split(","):
        for ranks in axis_values("--tp", tp).tolist():
            evaluator = evaluator_of(model, name.strip(), ranks, engine, weight_dtype, kv_dtype)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MfuroofWarning)  # what does not fit has no point in the figure
                answer = estimate(evaluator, input_len, output_len, clients)
            x.append(1.0 / answer.tpot_s)
            y.append(answer.output_tokens_per_s_per_gpu)
            groups += [evaluator.hardware.name] * clients.size
    text = title or f"{model}, {input_len:,} tokens in, {output_len:,} out ({engine})"
    drawn = plots.pareto(
        np.concatenate(x),
        np.concatenate(y),
        groups=groups,
        xlabel="speed of a stream [tokens/s]",
        ylabel="throughput [generated tokens/s per GPU]",
        title=text,
    )
    write_figure(out, drawn, json=json)


def sensitivity(
    model: o.Model,
    gpu: o.Gpu,
    out: Out,
    decode_batch: DecodeBatch = "64",
    decode_context: Context = 4096,
    prefill_tokens: PrefillTokens = 0,
    change: Annotated[float, typer.Option("--change", help="By how much a rate is raised or lowered.")] = 0.2,
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw what a slower or faster resource of the GPU does to step times."""
    from mfuroof import plots

    evaluator = evaluator_of(model, gpu, tp, engine, weight_dtype, kv_dtype)
    batch = _batch(decode_batch, decode_context, prefill_tokens)
    shape = _shape(decode_context, prefill_tokens)
    text = title or f"{name_of(evaluator)}: {decode_batch} decode at {shape}"
    write_figure(out, plots.tornado(evaluator, batch, change=change, title=text), json=json)


def crossover(
    model: o.Model,
    gpu: o.Gpu,
    out: Out,
    weight_dtype: Annotated[
        str, typer.Option("--weight-dtype", help="Weight formats, comma-separated; own is the checkpoint's.")
    ] = "own,fp8,int4_wo",
    decode_batch: DecodeBatch = "1:1024:log40",
    decode_context: Context = 1024,
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    kv_dtype: o.KvDtype = None,
    title: Title = None,
    json: o.Json = False,
) -> None:
    """Draw step times of weight formats, and from which batch on one stops paying."""
    from mfuroof import plots

    batch = _batch(decode_batch, decode_context, 0)
    times = {}
    for name in weight_dtype.split(","):
        evaluator = evaluator_of(model, gpu, tp, engine, None if name == "own" else name.strip(), kv_dtype)
        times[name.strip()] = evaluator.step_time(batch)
    text = title or f"{name_of(evaluator)}, {_shape(decode_context, 0)}"
    drawn = plots.crossover(batch.decode_batch, times, xlabel="decode requests of a step", title=text)
    write_figure(out, drawn, json=json)


def _app() -> typer.Typer:
    group = typer.Typer(help="Write figures as PNG, SVG or PDF files.", no_args_is_help=True)
    commands: tuple[Any, ...] = (roofline, breakdown, heatmap, steps, pareto, sensitivity, crossover)
    for function in commands:
        add_command(group, function.__name__, function, EXAMPLES[function.__name__])
    return group


app = _app()
