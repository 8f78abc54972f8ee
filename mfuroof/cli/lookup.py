"""``mfuroof lookup``: what a table says at a point, where that comes from, and how far the data is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

__all__ = ["EXAMPLES", "lookup", "pairs_of"]

EXAMPLES = (
    "mfuroof lookup gemm --gpu h100_sxm dtype=bf16 n=4096 k=4096 m=1:1024:x2",
    "mfuroof lookup gemm --gpu h100 dtype=fp8 n=4096 k=4096 m=100 --rule floor",
    "mfuroof lookup attn_decode --data DIR --gpu h20 heads=32 kv_heads=8 ...",
)


def lookup(
    family: Annotated[str, typer.Argument(help="Table family: gemm, attn_prefill, attn_decode, moe, comm and others.")],
    gpu: o.Gpu,
    at: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="Where to read; the last keys of a family may be a RANGE."),
    ] = None,
    engine: o.Engine = "vllm",
    data: Annotated[
        Path | None, typer.Option("--data", help="A folder of MFU files in the InferSim / BLIS layout instead.")
    ] = None,
    rule: Annotated[
        str | None, typer.Option("--rule", help="floor, ceiling, nearest_l1, nearest_l2, linear or loglog.")
    ] = None,
    outside: Annotated[
        str | None, typer.Option("--outside", help="Beyond the data: clamp, nan or raise; as far as the rule reaches.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Read a measured table, embedded or your own, and say where each value comes from.

    Values come with their source (exact, interpolated, clamped ...) and the distance to data in octaves. Points outside
    what was measured are named with the measured range; where no point has an answer the exit code is 3.
    """
    from mfuroof.cli.lookups import bench_lookup, kernel_lookup
    from mfuroof.cli.main import DATA

    queries = pairs_of(at or [])
    if data is None:
        answer = kernel_lookup(family, queries, gpu, engine, rule or "linear", outside)
    else:
        answer = bench_lookup(data, family, queries, gpu, rule, outside)
    if json:
        print_json(answer.to_dict())
    else:
        print_table(answer.title, answer.head, answer.rows(), numbers=range(len(answer.head)))
        for line in answer.notes():
            print(line)
    if not answer.answered:
        raise typer.Exit(DATA)


def pairs_of(texts: list[str]) -> dict[str, str]:
    """Return KEY=VALUE arguments as a mapping.

    Raises
    ------
    InputError
        No pair, or a key given twice.
    """
    from mfuroof._boundary import Problems

    problems = Problems()
    pairs: dict[str, str] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key or not value:
            problems.add(repr(text), "no pair", "KEY=VALUE, for instance m=128")
        elif key in pairs:
            problems.add(key, "two values", "one value, or a range such as 1:1024:x2")
        pairs[key] = value
    problems.raise_if_any()
    return pairs
