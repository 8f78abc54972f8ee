"""``mfuroof serve``: what clients of one deployment see under load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json

if TYPE_CHECKING:
    from mfuroof.serving import Speculation

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = (
    "mfuroof serve meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 4 --input-len 1024 --output-len 256 --concurrency 64",
    "mfuroof serve Qwen/Qwen3-32B --gpu h200_sxm --tp 1,2 --input-len 4000 --output-len 500 --concurrency 1:64:x4",
    "mfuroof serve Qwen/Qwen3-8B --gpu l40s --input-len 500 --output-len 200 --rate 0.5,2,8 --precision dynamic-fp8",
    "mfuroof serve Qwen/Qwen3-8B --gpu h100 --input-len 500 --output-len 200 --draft-tokens 3 --acceptance 0.7",
    "mfuroof serve Qwen/Qwen3-8B --gpu h100 --input-len 9000 --output-len 99 --rate 2 --num-prefill 2 --num-decode 1",
)

_SPECULATIVE, _POOLS = "Speculative decoding", "Prefill and decode in pools of their own"


def serve(
    model: o.Model,
    gpu: o.Gpu,
    input_len: Annotated[str, typer.Option("--input-len", "--isl", help="Prompt tokens.", metavar="RANGE")],
    output_len: Annotated[str, typer.Option("--output-len", "--osl", help="Generated tokens.", metavar="RANGE")],
    concurrency: Annotated[
        str | None, typer.Option("--concurrency", help="Clients with one request each in flight.", metavar="RANGE")
    ] = None,
    rate: Annotated[
        str | None, typer.Option("--rate", help="In its place: random arrivals, requests/s.", metavar="NUMBERS")
    ] = None,
    tp: Annotated[str, typer.Option("--tp", help="Tensor-parallel ranks, one or several.", metavar="RANGE")] = "1",
    pp: Annotated[int, typer.Option("--pp", help="Pipeline stages.")] = 1,
    ep: Annotated[int, typer.Option("--ep", help="Expert-parallel ranks.")] = 1,
    dp: Annotated[int, typer.Option("--dp", help="Attention data-parallel ranks.")] = 1,
    engine: o.Engine = "vllm",
    cached_prefix_len: Annotated[
        int, typer.Option("--cached-prefix-len", help="Tokens of each prompt that a prefix cache holds.")
    ] = 0,
    lengths: Annotated[
        str | None,
        typer.Option("--lengths", help="fixed, or uniform between 0.8 and 1 times those given; else those are means."),
    ] = None,
    requests_per_client: Annotated[
        float, typer.Option("--requests-per-client", help="Requests from a common start; inf leaves the start out.")
    ] = 10.0,
    max_batch_tokens: Annotated[
        int | None, typer.Option("--max-batch-tokens", help="Token budget of a step; the engine's own.")
    ] = None,
    max_num_seqs: Annotated[
        int | None, typer.Option("--max-num-seqs", help="Requests in flight in one engine; the engine's own.")
    ] = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    tables: o.Tables = None,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    precision: o.Precision = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    attention_dtype: o.AttentionDtype = None,
    moe_dtype: o.MoeDtype = None,
    draft_tokens: Annotated[
        int | None, typer.Option("--draft-tokens", help="Tokens guessed per step.", rich_help_panel=_SPECULATIVE)
    ] = None,
    acceptance: Annotated[
        float, typer.Option("--acceptance", help="Probability that a guess is right.", rich_help_panel=_SPECULATIVE)
    ] = 0.7,
    draft_model: Annotated[
        str | None,
        typer.Option("--draft-model", help="Model that guesses, on the same GPUs.", rich_help_panel=_SPECULATIVE),
    ] = None,
    draft_step_fraction: Annotated[
        float,
        typer.Option(
            "--draft-step-fraction",
            help="Without one: a guess as a share of a decode step.",
            rich_help_panel=_SPECULATIVE,
        ),
    ] = 0.0,
    num_prefill: Annotated[
        int | None, typer.Option("--num-prefill", help="Engines that prefill.", rich_help_panel=_POOLS)
    ] = None,
    num_decode: Annotated[
        int, typer.Option("--num-decode", help="Engines that decode.", rich_help_panel=_POOLS)
    ] = 1,
    prefill_gpu: Annotated[
        str | None, typer.Option("--prefill-gpu", help="GPU of those that prefill.", rich_help_panel=_POOLS)
    ] = None,
    prefill_tp: Annotated[
        int | None, typer.Option("--prefill-tp", help="Their tensor-parallel ranks.", rich_help_panel=_POOLS)
    ] = None,
    link_gb_per_s: Annotated[
        float | None,
        typer.Option(
            "--link-gb-per-s", help="Between the pools, per GPU; their network's.", rich_help_panel=_POOLS
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """Estimate TTFT, TPOT and throughput under load, and say what limits them.

    Every combination of the lengths, loads and ranks given is answered: one as a list of figures, several as a table.
    A closed loop (--concurrency, 1 if nothing is said) keeps each client's next request coming; an open one (--rate)
    has random arrivals.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.cli.serving_text import pool_records, print_records, records
    from mfuroof.errors import InputError, Problem
    from mfuroof.precision import runtime_of
    from mfuroof.step import StepEvaluator
    from mfuroof.sweep.axes import axis_values
    from mfuroof.units import GB

    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    asked = runtime_of(precision, gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype, kv_dtype=kv_dtype)
    if concurrency is not None and rate is not None:
        raise InputError(Problem("--concurrency, --rate", "both", "one of them"))
    load: dict[str, Any] = (
        {"arrival_rate": _numbers("--rate", rate)}
        if rate is not None
        else {"concurrency": axis_values("--concurrency", concurrency or "1")}
    )
    shape = {
        "input_len": axis_values("--input-len", input_len)[:, None, None],
        "output_len": axis_values("--output-len", output_len)[:, None],
        "cached_prefix_len": cached_prefix_len,
        "max_batch_tokens": max_batch_tokens,
        "max_num_seqs": max_num_seqs,
        "memory_utilization": memory_utilization,
        **load,
    }

    def evaluator(name: str, device: str, ranks: int) -> StepEvaluator:
        own = name == model  # a draft model keeps its own precision
        return StepEvaluator(
            name,
            device,
            ranks,
            pp,
            ep if own else 1,
            dp,
            cost=family,  # type: ignore[arg-type]
            engine=engine,
            tables=tables,
            params=params,
            weight_dtype=weight_dtype if own else None,
            kv_dtype=kv_dtype if own else None,
            runtime=asked.precision if asked and own else None,
        )

    def speculation(ranks: int) -> Speculation | None:
        from mfuroof.serving import Speculation

        if draft_tokens is None:
            if draft_model is not None or draft_step_fraction > 0:
                raise InputError(Problem("--draft-tokens", "nothing", "how many tokens are guessed per step"))
            return None
        draft = evaluator(draft_model, gpu, ranks) if draft_model is not None else None
        return Speculation(draft_tokens, acceptance, draft, draft_step_fraction)

    found: list[dict[str, Any]] = []
    for ranks in axis_values("--tp", tp).tolist():
        engine_of_decode = evaluator(model, gpu, ranks)
        if num_prefill is None:
            spread = {"length_distribution": lengths, "requests_per_client": requests_per_client}
            found += records(engine_of_decode, {**shape, **spread}, speculation(ranks), asked)
            continue
        if draft_tokens is not None or lengths is not None:
            option = "--draft-tokens" if draft_tokens is not None else "--lengths"
            raise InputError(Problem(option, "pools apart (--num-prefill)", "one pool", "Leave one of them out."))
        first = evaluator(model, prefill_gpu or gpu, prefill_tp or ranks)
        link = None if link_gb_per_s is None else link_gb_per_s * GB
        pools = {"num_prefill": num_prefill, "num_decode": num_decode, "link_bytes_per_s": link}
        found += pool_records(first, engine_of_decode, {**shape, **pools}, asked)
    if json:
        print_json(found)
    else:
        print_records(found)


def _numbers(option: str, text: str) -> list[float]:
    """Return comma-separated numbers."""
    from mfuroof.errors import InputError, Problem

    try:
        return [float(item) for item in text.split(",")]
    except ValueError as error:
        raise InputError(Problem(option, repr(text), "numbers with commas between them, such as 0.5,2,8")) from error
