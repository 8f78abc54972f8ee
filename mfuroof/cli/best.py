"""``mfuroof best``: the best rows of a finished sweep, or the best deployment of a model within limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.answers import print_answer

if TYPE_CHECKING:
    from mfuroof.queries import QueryResult

__all__ = ["EXAMPLES", "best"]

EXAMPLES = (
    "mfuroof best steps.parquet --maximize tokens_per_s_per_gpu --where 'step_time_ms <= 30'",
    "mfuroof best steps.parquet --maximize tokens_per_s_per_gpu --minimize step_time_s --by gpu",
    "mfuroof best meta-llama/Llama-3.1-70B --gpu h100_sxm,h200_sxm --tp 2,4,8 --input-len 1024 --output-len 512"
    " --tpot-limit 30ms --ttft-limit 1s --price h100_sxm=2.5,h200_sxm=3.2",
)

_MODEL = "A model within limits"
_CASE_COLUMNS = ("gpu", "tp_size", "engine", "weight_dtype", "kv_dtype")


def best(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="Parquet or CSV file, folder of Parquet files, or a model.")
    ],
    maximize: Annotated[str | None, typer.Option("--maximize", help="Column or expression to be large.")] = None,
    minimize: Annotated[str | None, typer.Option("--minimize", help="Column or expression to be small.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Condition, such as 'tpot_ms <= 30'; may be repeated.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="Columns whose values make groups, comma-separated.")] = "",
    top: Annotated[int, typer.Option("--top", help="Rows of each group.")] = 1,
    even_if_unfit: Annotated[
        bool, typer.Option("--even-if-unfit", help="Choose also among rows that do not fit the memory.")
    ] = False,
    price: Annotated[
        list[str] | None, typer.Option("--price", help="Price of a GPU-hour, GPU=PRICE; may be repeated.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", help="GPUs, comma-separated.", autocompletion=o.complete_gpu, rich_help_panel=_MODEL),
    ] = None,
    tp: Annotated[
        str, typer.Option("--tp", help="Tensor-parallel ranks.", metavar="RANGE", rich_help_panel=_MODEL)
    ] = "1",
    input_len: Annotated[
        int | None, typer.Option("--input-len", "--isl", help="Prompt tokens.", rich_help_panel=_MODEL)
    ] = None,
    output_len: Annotated[
        int | None, typer.Option("--output-len", "--osl", help="Generated tokens.", rich_help_panel=_MODEL)
    ] = None,
    tpot_limit: Annotated[
        str | None, typer.Option("--tpot-limit", help="Time per output token, such as 30ms.", rich_help_panel=_MODEL)
    ] = None,
    ttft_limit: Annotated[
        str | None, typer.Option("--ttft-limit", help="Time to the first token, such as 1s.", rich_help_panel=_MODEL)
    ] = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency",
            help="Clients of a replica; every number the engine keeps in flight.",
            metavar="RANGE",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="Engines, comma-separated.", rich_help_panel=_MODEL)] = "vllm",
    weight_dtype: Annotated[
        str, typer.Option("--weight-dtype", help="Weight formats, comma-separated.", rich_help_panel=_MODEL)
    ] = "own",
    kv_dtype: Annotated[
        str, typer.Option("--kv-dtype", help="KV-cache formats, comma-separated.", rich_help_panel=_MODEL)
    ] = "own",
    memory_utilization: o.MemoryUtilization = 0.9,
    json: o.Json = False,
) -> None:
    """Find the best rows of a table, or the best deployment of a model.

    Of a file or folder: the rows with the most (or the least) of something that meet all conditions; with both
    --maximize and --minimize, the rows that no other beats in both (the Pareto front). Names in expressions are
    columns (mfuroof describe lists them); a name ending in _ms or _gib reads the column ending in _s or _bytes.

    Rows that do not fit the memory are left out, unless a condition names fits or --even-if-unfit is given.

    Of a model: every number of clients on every GPU and rank count is estimated. What is sought is the lowest price
    per million output tokens where prices are given, the most output tokens per second and GPU otherwise.
    """
    from mfuroof.cli.quantities import prices_of, seconds

    groups = [name.strip() for name in by.split(",") if name.strip()]
    conditions = list(where or ())
    prices = prices_of("--price", price or ())
    goals = [f"{sense} {text}" for sense, text in (("max", maximize), ("min", minimize)) if text is not None]
    rows: Any = source
    given = {"--gpu": gpu, "--input-len": input_len, "--output-len": output_len, "--concurrency": concurrency}
    given |= {"--tpot-limit": tpot_limit, "--ttft-limit": ttft_limit}
    if _is_table(source):
        _check_table_question(goals, {name for name, value in given.items() if value is not None})
    else:
        rows = _loads(source, given, tp, engine, weight_dtype, kv_dtype, memory_utilization)
        for name, text in (("tpot", tpot_limit), ("ttft", ttft_limit)):
            if text is not None:
                conditions.append(f"{name}_s <= {seconds(f'--{name}-limit', text)!r}")
        several = {"gpu": len(rows.gpu), "tp_size": len(rows.tp_size), "engine": len(rows.engine)}
        several |= {"weight_dtype": len(rows.weight_dtype), "kv_dtype": len(rows.kv_dtype)}
        groups = groups or [name for name in _CASE_COLUMNS if several[name] > 1]
        usual = "max output_tokens_per_s_per_gpu" if prices is None else "min price_per_million_output_tokens"
        goals = goals or [usual]
    print_answer(_asked(rows, goals, conditions, groups, top, prices, even_if_unfit), conditions, json=json)


def _asked(
    rows: Any, goals: list[str], where: list[str], by: list[str], top: int, prices: dict[str, float] | None, even: bool
) -> QueryResult:
    from mfuroof.errors import InputError, Problem
    from mfuroof.queries import best, pareto_front

    if len(goals) == 1:
        return best(rows, goals[0], where, by=by, count=top, prices=prices, even_if_unfit=even)
    if top != 1:
        raise InputError(Problem("--top", str(top), "nothing beside both --maximize and --minimize"))
    return pareto_front(rows, goals, where, by=by, prices=prices, even_if_unfit=even)


def _is_table(source: str) -> bool:
    """Return whether a source is a table; a folder with a config.json, and what is no file, is a model."""
    path = Path(source)
    if path.is_dir():
        return not (path / "config.json").exists()
    return path.suffix in (".parquet", ".csv")


def _check_table_question(goals: list[str], given: set[str]) -> None:
    from mfuroof.errors import InputError, Problem

    if given:
        raise InputError(Problem(", ".join(sorted(given)), "beside a table", "a model", "Use --where for a table."))
    if not goals:
        raise InputError(Problem("--maximize, --minimize", "neither", "what to look for in the table"))


def _loads(
    model: str, given: dict[str, Any], tp: str, engine: str, weight_dtype: str, kv_dtype: str, memory_utilization: float
) -> Any:
    """Return the sweep over loads that answers a question about a model."""
    from mfuroof.errors import InputError, Problem
    from mfuroof.serving import scheduler_of
    from mfuroof.sweep import Sweep

    missing = [name for name in ("--gpu", "--input-len", "--output-len") if given[name] is None]
    if missing:
        text = f"{', '.join(missing)} left out, and {model!r} is no table"
        raise InputError(Problem("arguments", text, "a .parquet or .csv file, a folder, or a model with these options"))
    engines = [name.strip() for name in engine.split(",") if name.strip()]
    most = max((scheduler_of(name).max_num_seqs for name in engines), default=1)
    return Sweep(
        model,
        given["--gpu"],
        tp,
        engine=engines,
        weight_dtype=weight_dtype,
        kv_dtype=kv_dtype,
        input_len=given["--input-len"],
        output_len=given["--output-len"],
        concurrency=given["--concurrency"] or f"1:{most}",
        memory_utilization=memory_utilization,
    )
