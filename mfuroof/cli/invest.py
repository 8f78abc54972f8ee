"""``mfuroof invest``: which resource a step or a latency waits for, what a better one saves, and another GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mfuroof.sensitivity import Investment
    from mfuroof.step import StepEvaluator

__all__ = ["EXAMPLES", "invest"]

EXAMPLES = (
    "mfuroof invest Qwen/Qwen3-8B --gpu l40s --decode-batch 8 --decode-context 99",
    "mfuroof invest Qwen/Qwen3-8B --gpu h100 --isl 1024 --osl 99 --concurrency 8",
    "mfuroof invest Qwen/Qwen3-32B --gpu h100 --tp 2 --decode-batch 8 --to h200",
)
Times = Mapping[str, Callable[["StepEvaluator"], Any]]


def invest(
    model: o.Model,
    gpu: o.Gpu,
    tp: o.Tp = 1,
    decode_batch: Annotated[int | None, typer.Option("--decode-batch", help="Decode requests of a step.")] = None,
    decode_context: Annotated[int, typer.Option("--decode-context", help="Tokens each has in the KV cache.")] = 0,
    prefill_batch: Annotated[
        int | None, typer.Option("--prefill-batch", help="Prefill requests; 1 if there are prefill tokens.")
    ] = None,
    prefill_tokens: Annotated[int, typer.Option("--prefill-tokens", help="New tokens of each prefill request.")] = 0,
    input_len: Annotated[
        int | None, typer.Option("--input-len", "--isl", help="Prompt tokens: TTFT and TPOT under load.")
    ] = None,
    output_len: Annotated[int, typer.Option("--output-len", "--osl", help="Generated tokens.")] = 256,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Clients, each with one request.")] = 1,
    improvement: Annotated[
        float, typer.Option("--improvement", help="By how much each resource is made better, 0.2 for 20 %.")
    ] = 0.2,
    to: Annotated[
        str | None, typer.Option("--to", help="Also try another GPU.", autocompletion=o.complete_gpu)
    ] = None,
    engine: o.Engine = "vllm",
    cost: o.CostName = None,
    preset: o.Preset = None,
    missing: o.Missing = None,
    calibration: o.Calibration = None,
    precision: o.Precision = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    attention_dtype: o.AttentionDtype = None,
    moe_dtype: o.MoeDtype = None,
    json: o.Json = False,
) -> None:
    """Rank the resources of a GPU by the time a better one would save.

    For a step (--decode-batch, --prefill-tokens), for TTFT and TPOT under load (--input-len), or for all three. The
    share of a time is its elasticity: by how many percent it grows where the resource gets one percent slower.
    """
    from mfuroof.cli.costs import cost_and_params
    from mfuroof.errors import InputError, Problem
    from mfuroof.precision import runtime_of
    from mfuroof.sensitivity import where_to_invest
    from mfuroof.step import StepEvaluator

    step = decode_batch is not None or prefill_batch is not None or prefill_tokens > 0
    if not step and input_len is None:
        raise InputError(Problem("what is to be faster", "nothing", "--decode-batch, --prefill-tokens or --input-len"))
    family, params = cost_and_params(cost, preset, missing, calibration=calibration)
    asked = runtime_of(precision, gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype)
    runtime = asked.precision if asked else None
    evaluator = StepEvaluator(model, gpu, tp, cost=family, engine=engine, params=params, runtime=runtime)  # type: ignore[arg-type]
    times: dict[str, Callable[[StepEvaluator], Any]] = {}
    if step:
        prefills = int(prefill_tokens > 0) if prefill_batch is None else prefill_batch
        times["step"] = _step_time(decode_batch or 0, decode_context, prefills, prefill_tokens)
    if input_len is not None:
        times |= _latencies(evaluator, input_len, output_len, concurrency)
    tables = {name: where_to_invest(evaluator, time, improvement) for name, time in times.items()}
    record = {
        "model": evaluator.model.name,
        "gpu": evaluator.hardware.name,
        "tp_size": tp,
        "engine": evaluator.engine,
        "cost": evaluator.cost,
        "runtime": {"name": asked.name, **asked.precision.to_dict()} if asked else None,
        "improvement": improvement,
        "times": {name: {"time_s": t.time_s, "resources": t.to_dict()} for name, t in tables.items()},
        "other": None if to is None else _elsewhere(evaluator, to, times),
    }
    if json:
        print_json(record)
    else:
        _print(record, tables)


def _step_time(decode: int, context: int, prefills: int, tokens: int) -> Callable[[StepEvaluator], Any]:
    from mfuroof.batch import StepBatch

    batch = StepBatch.uniform(decode, context, prefills, tokens)
    return lambda e: e.step_time(batch)


def _latencies(evaluator: StepEvaluator, input_len: int, output_len: int, concurrency: int) -> Times:
    """Return TTFT and TPOT, on each device with as large a KV cache as it holds."""
    import warnings

    from mfuroof.errors import InputError, MfuroofWarning, Problem
    from mfuroof.serving import estimate

    def of(name: str) -> Callable[[StepEvaluator], Any]:
        return lambda e: getattr(estimate(e, input_len, output_len, concurrency), name)

    with warnings.catch_warnings():  # it is an error here
        warnings.simplefilter("ignore", MfuroofWarning)
        fits = bool(estimate(evaluator, input_len, output_len, concurrency).fits)
    if not fits:
        found = f"tp {evaluator.parallel.tp_size}"
        raise InputError(Problem("--tp", found, "ranks whose memory holds the model and one such request"))
    return {"TTFT": of("ttft_s"), "TPOT": of("tpot_s")}


def _elsewhere(evaluator: StepEvaluator, to: str, times: Times) -> dict[str, Any]:
    """Return the times on another GPU: with the utilisation measured here, and with its own tables."""
    from mfuroof.hardware import get_hardware
    from mfuroof.sensitivity import what_if

    held, own = what_if(evaluator, to), what_if(evaluator, to, hold_utilisation=False)
    return {
        "gpu": get_hardware(to).name,
        "same_utilisation_s": {name: float(_scalar(time(held))) for name, time in times.items()},
        "own_tables_s": {name: float(_scalar(time(own))) for name, time in times.items()},
    }


def _scalar(value: Any) -> float:
    import numpy as np

    return float(np.ravel(value)[0])


def _print(record: dict[str, Any], tables: Mapping[str, Investment]) -> None:
    from mfuroof.units import MS

    launched = f", {record['runtime']['name']}" if record["runtime"] else ""
    spread = f"tp {record['tp_size']}, {record['cost']} ({record['engine']}){launched}"
    print(f"{record['model']} on {record['gpu']}, {spread}")
    saved = {name: {row[0]: row[1:] for row in table.rows} for name, table in tables.items()}
    order = sorted(next(iter(saved.values())), key=lambda r: -max(rows[r][1] for rows in saved.values()))
    useful = [r for r in order if any(rows[r][0] > 5e-4 or rows[r][1] > 5e-4 for rows in saved.values())]
    head = ["resource", *(cell for name in tables for cell in (f"of {name}", "saved"))]
    rows = [[r, *(f"{value:.1%}" for by in saved.values() for value in by[r])] for r in useful]
    fixed = (f"{1.0 - sum(share for share, _ in by.values()):.1%}" for by in saved.values())
    rows.append(["fixed", *(cell for share in fixed for cell in (share, "-"))])
    rows.append(["time_ms", *(cell for t in tables.values() for cell in (f"{t.time_s / MS:.3f}", ""))])
    print_table("", head, rows)
    print(f"saved: where it is {record['improvement']:.0%} better; overhead: time beside the kernels;")
    print("fixed: what none of them changes, such as launches and the latency of links")
    idle = [r for r in order if r not in useful]
    if idle:
        print(f"no effect: {', '.join(idle)}")
    other = record["other"]
    if other is not None:
        for key, how in (("same_utilisation_s", "at the utilisation measured here"), ("own_tables_s", "as measured")):
            each = (f"{n} {t / MS:.3f} ms ({tables[n].time_s / t:.2f} x)" for n, t in other[key].items() if t > 0)
            print(f"{other['gpu']}, {how}: {', '.join(each)}")
