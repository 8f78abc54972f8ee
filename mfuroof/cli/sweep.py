"""``mfuroof sweep``: millions of shapes or loads into Parquet or a few best rows, and what was found."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli import sweep_options as s
from mfuroof.cli.output import print_json
from mfuroof.cli.running import progress_bar, stoppable
from mfuroof.errors import InputError, Problem

__all__ = ["EXAMPLES", "sweep"]

EXAMPLES = (
    "mfuroof sweep meta-llama/Llama-3.1-70B --gpu h100_sxm --tp 1,2,4,8",
    "mfuroof sweep Qwen/Qwen3-32B --gpu h100_sxm,h200_sxm --out folder",
    "mfuroof sweep Qwen/Qwen3-8B --gpu l40s --best tokens_per_s_per_gpu",
    "mfuroof sweep --cases cases.csv --infeasible drop --out q.parquet",
)


def sweep(
    context: typer.Context,
    model: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Models, or paths of configs.", autocompletion=o.complete_model),
    ] = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="GPUs, comma-separated.", autocompletion=o.complete_gpu)
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Engines, comma-separated; vllm.")] = None,
    zipped: s.Zip = None,
    where: s.Where = None,
    cases: s.Cases = None,
    tp: Annotated[str | None, s.degree("--tp", "Tensor-parallel ranks; 1.")] = None,
    pp: Annotated[str | None, s.degree("--pp", "Pipeline stages; 1.")] = None,
    ep: Annotated[str | None, s.degree("--ep", "Expert-parallel ranks; 1.")] = None,
    dp: Annotated[str | None, s.degree("--dp", "Attention data-parallel ranks; 1.")] = None,
    weight_dtype: Annotated[
        str | None, typer.Option("--weight-dtype", help="Weight formats, comma-separated; own is the checkpoint's.")
    ] = None,
    kv_dtype: Annotated[
        str | None, typer.Option("--kv-dtype", help="KV-cache formats, comma-separated; own is the checkpoint's.")
    ] = None,
    attention_dtype: Annotated[
        str | None, typer.Option("--attention-dtype", help="Formats of the attention arithmetic, comma-separated.")
    ] = None,
    moe_dtype: Annotated[
        str | None, typer.Option("--moe-dtype", help="Formats of the routed experts, comma-separated.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", metavar="PRESETS", help="Runtime presets, comma-separated: own,dynamic-fp8."),
    ] = None,
    decode_batch: Annotated[str | None, s.shape("--decode-batch", "Decode requests of a step; 1:256.")] = None,
    decode_context: Annotated[
        str | None, s.shape("--decode-context", "Tokens each has in the KV cache; 1024:32768:+1024.")
    ] = None,
    prefill_batch: Annotated[str | None, s.shape("--prefill-batch", "Prefill requests of a step; 1.")] = None,
    prefill_tokens: Annotated[
        str | None, s.shape("--prefill-tokens", "New tokens of each, 0 for decode only; 0:8192:+256.")
    ] = None,
    prefill_context: Annotated[str | None, s.shape("--prefill-context", "Tokens each has in the KV cache; 0.")] = None,
    input_len: Annotated[str | None, s.load("--input-len/--isl", "Prompt tokens.")] = None,
    output_len: Annotated[str | None, s.load("--output-len/--osl", "Generated tokens.")] = None,
    concurrency: Annotated[str | None, s.load("--concurrency", "Requests in flight; 1:256:x2.")] = None,
    cached_prefix_len: Annotated[
        str | None, s.load("--cached-prefix-len", "Prompt tokens that a prefix cache holds.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="FILE.parquet, or a folder of partitions that resumes; steps.parquet."),
    ] = None,
    detail: Annotated[str, typer.Option("--detail", help="Columns: times, bound or components.")] = "bound",
    infeasible: Annotated[
        str, typer.Option("--infeasible", help="What cannot run or does not fit: keep (with a reason) or drop.")
    ] = "keep",
    best: s.Best = None,
    top: s.Top = 1,
    pareto: s.ParetoOf = None,
    histogram: s.HistogramOf = None,
    by: s.By = "",
    having: s.Having = None,
    even_if_unfit: s.EvenIfUnfit = False,
    threads: s.Threads = None,
    shard: s.ShardOf = None,
    dask_workers: s.DaskWorkers = None,
    scheduler: s.Scheduler = None,
    restart: s.Restart = False,
    verify: s.Verify = False,
    partition_rows: s.PartitionRows = None,
    max_rows: s.MaxRows = None,
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    tables: o.Tables = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    json: o.Json = False,
) -> None:
    """Price every combination of models, GPUs, ranks, precisions and step shapes or loads.

    A RANGE is 8, 1,2,4, 1:64 (every number), 0:8192:+512 (add), 1:512:x2 (multiply), 0:8192:lin17 or 1:8192:log14
    (evenly or geometrically spaced points), or several of them with commas between. The defaults give 270,336 shapes
    for each model, GPU and rank count.

    FILE.parquet appears under its name, in place of an older one, when it is complete. A folder is filled partition
    by partition: after a kill, a full disk or a lost connection the same command goes on where it was. With --best,
    --pareto or --histogram the rows are reduced as they come and never written, and a folder keeps the results;
    --best and --pareto choose among rows that fit the memory, unless --having names fits.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.cli.sweep_reduce import reductions_of
    from mfuroof.sweep import Sweep
    from mfuroof.sweep.size import check_size
    from mfuroof.sweep.space import Space

    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    kept = reductions_of(best, top, pareto, histogram, by, having, even_if_unfit)
    definition = Sweep(
        model or None,
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
        pp_size=pp,
        ep_size=ep,
        dp_size=dp,
        attention_dtype=attention_dtype,
        moe_dtype=moe_dtype,
        runtime=precision,
        input_len=input_len,
        output_len=output_len,
        concurrency=concurrency,
        cached_prefix_len=cached_prefix_len,
        together=zipped or (),
        table=cases,
        where=where or (),
    )
    check_size(Space(definition), not kept, max_rows)
    given: dict[str, Any] = {"detail": detail, "infeasible": infeasible, "threads": threads}
    given["command"] = shlex.join(["mfuroof", *context.obj])
    single = out is not None and out.suffix == ".parquet"
    spread = {"--shard": shard, "--dask-workers": dask_workers, "--scheduler": scheduler}
    spread |= {"--restart": restart or None, "--verify": verify or None, "--partition-rows": partition_rows}
    asked = next((name for name, value in spread.items() if value is not None), "")
    needless = kept and asked in ("--dask-workers", "--scheduler")
    if asked and (single or (out is None and not needless)):
        found = f"--out {out}" if single else "no folder"
        raise InputError(Problem(asked, found, "a folder of partitions", "Add --out FOLDER, without a suffix."))
    if single and kept:
        raise InputError(Problem("--out", str(out), "a folder for the results", "Leave the suffix out."))
    folder = None if single or out is None else out
    with stoppable() as guard, _cluster(dask_workers, scheduler) as client, progress_bar("sweep") as advance:
        given["progress"] = guard(advance)
        more: dict[str, Any] = {"shard": shard, "cluster": client, "restart": restart, "partition_rows": partition_rows}
        if kept:
            _reduce(definition, kept, folder, json, {**given, **more})
        elif folder is not None:
            _write(definition, folder, json, {**given, **more, "verify": verify})
        else:
            _single(definition, out or Path("steps.parquet"), json, given)


def _single(definition: Any, out: Path, json: bool, given: dict[str, Any]) -> None:
    from mfuroof.cli.sweep_report import print_summary
    from mfuroof.sweep import run_sweep

    summary = run_sweep(definition, out, **given)
    if json:
        print_json(summary.to_dict())
    else:
        print_summary(summary, f", written to {out}")


def _write(definition: Any, folder: Path, json: bool, given: dict[str, Any]) -> None:
    from mfuroof.cli.sweep_report import print_summary
    from mfuroof.sweep import write_sweep

    with _resumable(folder):
        summary = write_sweep(definition, folder, **given)
    if json:
        print_json(summary.to_dict() | {"partitions": summary.partitions})
    else:
        print_summary(summary, f", {summary.partitions} partitions in {folder}")


def _reduce(definition: Any, kept: dict[str, Any], folder: Path | None, json: bool, given: dict[str, Any]) -> None:
    from mfuroof.cli.output import count
    from mfuroof.cli.sweep_report import print_result
    from mfuroof.sweep import reduce_sweep

    with _resumable(folder):
        reduced = reduce_sweep(definition, kept, folder, **given)
    summary = reduced.summary
    if json:
        results = {name: table.to_pylist() for name, table in reduced.tables.items()}
        print_json(summary.to_dict() | {"results": results})
        return
    where = "" if folder is None else f", {', '.join(f'{name}.parquet' for name in kept)} in {folder}"
    if given["shard"] is not None:
        where = f", kept in {folder}: run all shards, then the command without --shard"
    print(f"{count(summary.rows)} rows in {summary.seconds:.2f} s{where}")
    if summary.partitions_done_before:
        print(f"{summary.partitions_done_before} of {summary.partitions} partitions were done before")
    for name, table in reduced.tables.items():
        print_result(name, table, tuple(kept[name].by))


@contextmanager
def _cluster(workers: int | None, address: str | None) -> Iterator[Any]:
    """Yield a client of the cluster that is asked for; None for none."""
    if workers is not None and address is not None:
        raise InputError(Problem("--scheduler", "--dask-workers as well", "one of them"))
    if workers is None and address is None:
        yield None
        return
    from mfuroof.sweep.cluster import connected, local_cluster

    with local_cluster(workers) if workers is not None else connected(str(address)) as client:
        yield client


@contextmanager
def _resumable(folder: Path | None) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None:
            print(f"mfuroof: what is done is kept in {folder}; the same command goes on", file=sys.stderr)
        raise
