"""``mfuroof sweep``: millions of step shapes into one Parquet file, and what was found."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import count, print_json, print_table
from mfuroof.cli.running import progress_bar, stoppable

if TYPE_CHECKING:
    from mfuroof.sweep import SweepSummary

__all__ = ["EXAMPLES", "sweep"]

EXAMPLES = (
    "mfuroof sweep meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 1,2,4,8",
    "mfuroof sweep Qwen/Qwen3-32B --gpu h100_sxm,h200_sxm --decode-batch 1:64",
    "mfuroof sweep Qwen/Qwen3-8B --gpu l40s --weight-dtype own,fp8 -o q.parquet",
)


def _range(option: str, what: str) -> Any:
    return typer.Option(option, help=what, metavar="RANGE", rich_help_panel="Step shapes")


def sweep(
    context: typer.Context,
    model: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Models, or paths of configs.", autocompletion=o.complete_model),
    ],
    gpu: Annotated[str, typer.Option("--gpu", help="GPUs, comma-separated.", autocompletion=o.complete_gpu)],
    tp: Annotated[str, typer.Option("--tp", help="Tensor-parallel ranks.", metavar="RANGE")] = "1",
    engine: Annotated[str, typer.Option("--engine", help="Engines, comma-separated.")] = "vllm",
    weight_dtype: Annotated[
        str, typer.Option("--weight-dtype", help="Weight formats, comma-separated; own is the checkpoint's.")
    ] = "own",
    kv_dtype: Annotated[
        str, typer.Option("--kv-dtype", help="KV-cache formats, comma-separated; own is the checkpoint's.")
    ] = "own",
    decode_batch: Annotated[str, _range("--decode-batch", "Decode requests of a step.")] = "1:256",
    decode_context: Annotated[str, _range("--decode-context", "Tokens each has in the KV cache.")] = "1024:32768:+1024",
    prefill_batch: Annotated[str, _range("--prefill-batch", "Prefill requests of a step.")] = "1",
    prefill_tokens: Annotated[str, _range("--prefill-tokens", "New tokens of each; 0: decode only.")] = "0:8192:+256",
    prefill_context: Annotated[str, _range("--prefill-context", "Tokens each has in the KV cache.")] = "0",
    out: Annotated[Path, typer.Option("--out", "-o", help="Parquet file to write.")] = Path("steps.parquet"),
    detail: Annotated[str, typer.Option("--detail", help="Columns: times, bound or components.")] = "bound",
    infeasible: Annotated[
        str, typer.Option("--infeasible", help="Models that do not fit their GPUs: keep (with a warning) or drop.")
    ] = "keep",
    threads: Annotated[int | None, typer.Option("--threads", help="Threads; all processors.")] = None,
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    tables: o.Tables = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    json: o.Json = False,
) -> None:
    """Price every combination of models, GPUs, ranks and step shapes.

    A RANGE is 8, 1,2,4, 1:64 (every number), 0:8192:+512 (add), 1:512:x2 (multiply), 0:8192:lin17 or 1:8192:log14
    (evenly or geometrically spaced points), or several of them with commas between. The file appears under its name,
    in place of an older one, when it is complete. The defaults give 270,336 shapes for each model, GPU and rank count.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.sweep import Sweep, run_sweep

    family, params = cost_and_params(cost, preset, missing)
    definition = Sweep(
        model,
        gpu,
        tp,
        engine=engine,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
        decode_batch=decode_batch,
        decode_context=decode_context,
        prefill_batch=prefill_batch,
        prefill_new_tokens=prefill_tokens,
        prefill_context=prefill_context,
        cost=family,
        tables=tables,
        params=params,
        memory_utilization=memory_utilization,
    )
    with stoppable() as guard, progress_bar("sweep") as advance:
        summary = run_sweep(
            definition,
            out,
            detail=detail,  # type: ignore[arg-type]
            infeasible=infeasible,  # type: ignore[arg-type]
            threads=threads,
            progress=guard(advance),
            command=shlex.join(["mfuroof", *context.obj]),
        )
    if json:
        print_json(summary.to_dict())
    else:
        _print(summary, out)


def _print(summary: SweepSummary, out: Path) -> None:
    from mfuroof.costs.base import RESOURCES
    from mfuroof.units import MS

    print(f"{count(summary.rows)} steps in {summary.seconds:.2f} s, written to {out}")
    best, fastest, shares = [], [], []
    for name, case in zip(_names(summary), summary.cases, strict=True):
        if case.best is None or case.fastest is None:
            continue
        star = "*" if case.best.fits is False else ""
        rate = count(case.best.tokens_per_s_per_gpu) + star
        best.append((name, rate, f"{case.best.step_time_s / MS:.2f}", _shape(case.best.shape)))
        fastest.append((name, f"{case.fastest.step_time_s / MS:.2f}", _shape(case.fastest.shape)))
        fit = "-" if case.rows_that_fit is None else f"{case.rows_that_fit / case.rows:.0%}"
        shares.append((name, *(f"{share:.0%}" for share in case.bound_shares.values()), fit))
    print()
    print_table("Highest throughput", ("case", "tokens/s/GPU", "time_ms", "step"), best)
    if any(row[1].endswith("*") for row in best):
        print("* no step of this case fits into GPU memory")
    print()
    print_table("Fastest step", ("case", "time_ms", "step"), fastest)
    print("step: decode requests x context + prefill requests x new tokens")
    if shares and len(shares[0]) > 2:
        print()
        print_table("Share of steps by what binds them, and that fit", ("case", *RESOURCES, "fit"), shares)
    unanswered = sum(case.rows_without_answer for case in summary.cases)
    if unanswered:
        print(f"{count(unanswered)} steps have no answer (NaN): no table covers them")
    for case in summary.cases:
        if case.rows == 0:
            print(f"not priced: {case.case.title}: {case.reason}")
    if summary.best is not None and summary.best.best is not None:
        print()
        print(f"best: {summary.best.case.title}, {count(summary.best.best.tokens_per_s_per_gpu)} tokens/s per GPU")


def _names(summary: SweepSummary) -> list[str]:
    """Name each case by what differs between cases."""
    labels = [case.case.labels for case in summary.cases]
    differing = [key for key in labels[0] if len({row[key] for row in labels}) > 1] or ["gpu"]
    prefix = {"tp_size": "tp", "kv_dtype": "kv "}
    return [" ".join(f"{prefix.get(key, '')}{row[key]}" for key in differing) for row in labels]


def _shape(shape: dict[str, int]) -> str:
    text = f"{shape['decode_batch']}x{shape['decode_context']}"
    if shape["prefill_batch"] and shape["prefill_new_tokens"]:
        text += f"+{shape['prefill_batch']}x{shape['prefill_new_tokens']}"
    return text
