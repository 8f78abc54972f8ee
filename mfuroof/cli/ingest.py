"""``mfuroof ingest``: measurements of other projects into the layout of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

__all__ = ["EXAMPLES", "aiconfigurator"]

EXAMPLES = (
    "mfuroof ingest aiconfigurator aiconfigurator-core --gpu l40s --out DIR",
    "mfuroof ingest aiconfigurator core.whl --gpu l40s --family gemm -o DIR",
)


def aiconfigurator(
    source: Annotated[str, typer.Argument(help="Folder, wheel, or name of the installed package.")],
    gpu: Annotated[str, typer.Option("--gpu", help="GPU folders of the package, comma-separated.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Root folder of the result.")],
    engine: Annotated[str, typer.Option("--engine", help="Engines, comma-separated.")] = "vllm",
    family: Annotated[
        str | None, typer.Option("--family", help="Table families, comma-separated; all that were measured.")
    ] = None,
    package_version: Annotated[
        str | None, typer.Option("--package-version", help="Version to record where the source does not say it.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Convert the kernel tables that the package aiconfigurator-core ships."""
    from mfuroof.ingest.aiconfigurator import ingest

    written = ingest(
        source,
        _names(gpu),
        _names(engine),
        out,
        families=None if family is None else _names(family),
        package_version=package_version,
    )
    if json:
        keys = ("gpu", "engine", "family", "rows")
        print_json([{**{k: getattr(w, k) for k in keys}, "path": str(w.path)} for w in written])
    else:
        print_table("", ("file", "rows"), [(str(w.path), f"{w.rows:,}") for w in written])


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
