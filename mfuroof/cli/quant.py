"""``mfuroof quant``: launch arguments of engines, detection of a checkpoint's precision, comparison of presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.command import add_command
from mfuroof.cli.output import console, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mfuroof.quant import Comparison, LaunchArgs, QuantConfig

__all__ = ["EXAMPLES", "app", "args", "compare", "detect"]

EXAMPLES = {
    "args": (
        "mfuroof quant args vllm --preset dynamic-fp8",
        "mfuroof quant args sglang --kvcache-dtype fp8 --checkpoint Qwen/Qwen3-32B-FP8",
        "mfuroof quant args trtllm --preset bf16-stable --engine-version 1.2.0 -- --tp_size 4",
    ),
    "detect": ("mfuroof quant detect Qwen/Qwen3-32B-FP8", "mfuroof quant detect ./my-model/config.json --json"),
    "compare": (
        "mfuroof quant compare Qwen/Qwen3-30B-A3B --gpu h100_sxm",
        "mfuroof quant compare Qwen/Qwen3-8B --gpu h200_sxm --preset default --preset dynamic-fp8 --concurrency 64",
    ),
}

Presets = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        "--precision",
        help="default, kv-cache-fp8, dynamic-fp8, bf16-stable, aggressive-moe; may be given several times.",
        autocompletion=o.complete_precision,
    ),
]
EngineVersion = Annotated[
    str | None, typer.Option("--engine-version", help="Version of the engine; the newest known.")
]


def args(
    engine: Annotated[str, typer.Argument(help="vllm, sglang or trtllm.")],
    user: Annotated[
        list[str] | None, typer.Argument(metavar="[-- ARGS]", help="Your own arguments, passed on; they win.")
    ] = None,
    preset: Presets = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    attention_dtype: o.AttentionDtype = None,
    moe_dtype: o.MoeDtype = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="Model that will be served: built in, path, or name.")
    ] = None,
    engine_version: EngineVersion = None,
    gpu: Annotated[str | None, typer.Option("--gpu", help="Say what is not native on this GPU.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where the engine cannot do what is asked.")] = False,
    json: o.Json = False,
) -> None:
    """Print the arguments that make an engine run in a precision."""
    from mfuroof.quant import launch_args

    made = [
        launch_args(
            engine,
            config,
            user or None,
            checkpoint=checkpoint,
            engine_version=engine_version,
            hardware=gpu,
            unsupported="error" if strict else "warn",
        )
        for config in _configs(preset, gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype)
    ]
    if json:
        print_json([_record(m) for m in made])
        return
    for m in made:
        if len(made) > 1:
            print(f"# {m.name}")
        print(m.to_shell())
        if m.yaml:
            print("".join(f"# llm_options.yaml: {line}\n" for line in m.yaml_text().splitlines()), end="")
        for note in m.notes:
            print(f"# {note}")


def detect(
    checkpoint: Annotated[str, typer.Argument(help="Built-in model, path of a config or its folder, or a name.")],
    json: o.Json = False,
) -> None:
    """Say whether a checkpoint is quantised already, how, and what it brings for the KV cache."""
    from dataclasses import asdict

    from mfuroof.quant import detect as find

    found = find(checkpoint)
    if json:
        print_json({**asdict(found), "quantised": found.quantised, "kv_quantised": found.kv_quantised})
        return
    print(found.summary())
    for text in found.warnings:
        print(f"# {text}")


def compare(
    model: o.Model,
    gpu: o.Gpu,
    preset: Presets = None,
    gemm_dtype: o.GemmDtype = None,
    kvcache_dtype: o.KvCacheDtype = None,
    attention_dtype: o.AttentionDtype = None,
    moe_dtype: o.MoeDtype = None,
    tp: o.Tp = 1,
    engine: o.Engine = "vllm",
    cost: o.CostName = None,
    batch: Annotated[int, typer.Option("--batch", help="Decode requests of a step.")] = 32,
    input_len: Annotated[int, typer.Option("--input-len", "--isl", help="Prompt tokens.")] = 1024,
    output_len: Annotated[int, typer.Option("--output-len", "--osl", help="Generated tokens.")] = 256,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Clients; as many as --batch.")] = None,
    memory_utilization: o.MemoryUtilization = 0.9,
    engine_version: EngineVersion = None,
    json: o.Json = False,
) -> None:
    """Compare precisions in one table: what can be launched, step time, TTFT, TPOT, memory, KV capacity, sequences.

    Every preset, unless some are named or a field is given.
    """
    from mfuroof.quant import PRESETS
    from mfuroof.quant import compare as run
    from mfuroof.quant.comparison import HEAD

    fields = (gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype)
    named = preset if preset or any(fields) else list(PRESETS)
    table = run(
        model,
        gpu,
        list(_configs(named, *fields)),
        batch_size=batch,
        input_len=input_len,
        output_len=output_len,
        concurrency=concurrency,
        memory_utilization=memory_utilization,
        tp_size=tp,
        engine=engine,
        engine_version=engine_version,
        cost=cost or "kernels",
    )
    if json:
        print_json(_comparison(table))
        return
    print(table.title())
    print(table.load())
    _print_cells(HEAD, table.cells())
    print("times in ms, weights in GiB per GPU; seqs: sequences that fit at once")
    for line in table.remarks():
        print(line)


def _configs(
    preset: list[str] | None, gemm: str | None, kvcache: str | None, attention: str | None, moe: str | None
) -> tuple[QuantConfig, ...]:
    from mfuroof.quant import expand

    names = ("gemm_dtype", "kvcache_dtype", "attention_dtype", "moe_dtype")
    given = zip(names, (gemm, kvcache, attention, moe), strict=True)
    fields: dict[str, Any] = {name: value for name, value in given if value is not None}
    return expand({"presets": preset, **fields} if preset else fields)


def _print_cells(head: Sequence[str], rows: list[list[str]]) -> None:
    """Print times and memory side by side, or one below the other where the terminal is narrow."""
    width = sum(2 + max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)) - 2
    memory = len(head) - 3
    parts: tuple[list[int], ...] = ([*range(memory)], [0, *range(memory, len(head))])
    for part in parts if width > console().width else ([*range(len(head))],):
        print_table("", [head[i] for i in part], [[row[i] for i in part] for row in rows])


def _comparison(table: Comparison) -> dict[str, Any]:
    about = {"model": table.model, "gpu": table.hardware, "engine": table.engine, "workload": dict(table.workload)}
    return {**about, "rows": table.rows, "notes": dict(table.notes)}


def _record(made: LaunchArgs) -> dict[str, Any]:
    return {
        "engine": made.engine,
        "engine_version": made.engine_version,
        "name": made.name,
        "args": made.to_dict(),
        "list": made.to_list(),
        "shell": made.to_shell(),
        "yaml": dict(made.yaml),
        "derived": dict(made.derived),
        "notes": list(made.notes),
        "warnings": list(made.warnings),
        "refused": list(made.refused),
    }


app = typer.Typer(help="Precision as a decision: what it buys, and how to launch it.", no_args_is_help=True)
for _command in (args, detect, compare):
    add_command(app, _command.__name__, _command, EXAMPLES[_command.__name__])
