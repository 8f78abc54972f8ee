"""``mfuroof collect``: kernel tables of the machine it runs on."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import count, print_json, print_pairs, print_table

if TYPE_CHECKING:
    from mfuroof.collect import Backend, Collection

__all__ = ["EXAMPLES", "collect"]

EXAMPLES = (
    "mfuroof collect --out mine --minutes 25",
    "mfuroof collect --out mine --minutes 25 --resume",
    "mfuroof collect --out mine --families gemm,attn_decode --model Qwen/Qwen3-8B",
    "mfuroof collect --out steps --families steps --minutes 20",
    "mfuroof collect --out try --device cpu",
)
DEVICES = ("cuda", "cpu", "torch-cpu")


def collect(
    context: typer.Context,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the journal and the tables.")],
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="cuda: the first GPU, through torch. cpu: this processor, through numpy, with tiny shapes. "
            "torch-cpu: the code for cuda on CPU tensors, to test it.",
        ),
    ] = "cuda",
    families: Annotated[
        str | None,
        typer.Option(
            "--families",
            help="ceiling, launch, gemm, attn_prefill, attn_decode, attn_extend, moe, elementwise, comm with commas "
            "between, or steps alone; all but steps if left out.",
        ),
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", help="Time to spend; what is worth most comes first.")] = 10.0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the collection in --out.")] = False,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Name of the tables' folder; the catalogue's if left out.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Measure this model's shapes beside the grids; may be repeated."),
    ] = None,
    levels: Annotated[int, typer.Option("--levels", help="How fine the grids become, 0 to 3.")] = 3,
    fp8_scaling: Annotated[
        str, typer.Option("--fp8-scaling", help="What rows named fp8 are of: one scale a tensor, or a row.")
    ] = "tensor",
    json: o.Json = False,
) -> None:
    """Measure kernel tables on this machine.

    Results are kept one by one: stopped at any time, the tables of what there is are written, and --resume goes on.
    Every kernel is checked against a reference; a wrong result is no data. Device cuda needs a GPU build of torch,
    which the extra "collect" of the package brings.
    """
    from mfuroof._boundary import choice
    from mfuroof.cli.running import progress_bar, stoppable
    from mfuroof.collect import collect as run
    from mfuroof.collect.collection import MODELS

    backend = _backend(choice("device", device, DEVICES))
    chosen = None if families is None else [name.strip() for name in families.split(",") if name.strip()]
    with stoppable() as guard, progress_bar("measuring", rate=False) as advance:
        found = run(
            backend,
            out,
            families=chosen,
            minutes=minutes,
            resume=resume,
            gpu=gpu,
            models=tuple(model) if model else MODELS,
            levels=levels,
            fp8_scaling=fp8_scaling,
            session={"command": shlex.join(["mfuroof", *context.obj])},
            advance=guard(advance),
        )
    if json:
        print_json(_record(found))
    else:
        _print(found, out, device)
    if found.progress.interrupted:
        raise KeyboardInterrupt
    if found.audit.of(severity="error"):
        raise typer.Exit(1)


def _backend(device: str) -> Backend:
    if device == "cpu":
        from mfuroof.collect import CpuBackend

        return CpuBackend()
    from mfuroof.collect.torch_backend import TorchBackend

    return TorchBackend(device)


def _record(found: Collection) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "folder": str(found.compiled.folder),
        "progress": asdict(found.progress),
        **found.compiled.summary,
        "audit": found.audit.to_dict(),
    }


def _print(found: Collection, out: Path, device: str) -> None:
    from mfuroof.collect.compile import ENGINE
    from mfuroof.hardware import known_hardware
    from mfuroof.units import GB, TERA, US

    progress, summary, folder = found.progress, found.compiled.summary, found.compiled.folder
    print(f"{summary['device']['name']}: {count(progress.done)} of {count(progress.planned)} points measured")
    statuses = sorted({s for row in found.compiled.counts.values() for s in row}, key=lambda s: (s != "ok", s))
    tables = found.compiled.rows
    rows = [
        (name, *(count(row.get(s, 0)) for s in statuses), count(tables[name]) if name in tables else "-")
        for name, row in found.compiled.counts.items()
    ]
    print_table("points", ("family", *statuses, "rows"), rows)
    pairs: list[tuple[str, Any]] = []
    if (best := summary["ceilings"]) is not None:
        rates = ", ".join(f"{d} {rate / TERA:.4g} TFLOP/s" for d, rate in best["flops_per_s"].items())
        pairs += [("memory copy", f"{best['bytes_per_s'] / GB:,.1f} GB/s"), ("products", rates)]
    pairs += [(f"launch, {name}", f"{seconds / US:.2f} us") for name, seconds in summary["launch_s"].items()]
    if summary["noise"]:
        noise = summary["noise"]
        pairs += [("spread", f"median {noise['spread_median']:.1%}, nine of ten below {noise['spread_p90']:.1%}")]
    print_pairs("", pairs)
    for finding in found.audit.findings:
        if finding.severity != "info":
            print(f"{finding.severity}: {finding.file}: {finding.text}")
    for text in progress.given_up:
        print(f"given up: {text}")
    print(f"written to {folder}")
    if "steps" in found.compiled.counts:
        print(f"measured steps: {folder / 'steps.csv'}")
    elif found.compiled.rows:
        if folder.name in known_hardware():
            print(f"use: mfuroof step MODEL --gpu {folder.name} --tables {folder} --engine {ENGINE} ...")
        else:
            print(f"use: StepEvaluator(MODEL, load_catalogue({str(folder / 'device.json')!r})[{folder.name!r}],")
            print(f"                   tables={str(folder)!r}, engine={ENGINE!r})")
    if progress.out_of_time or progress.interrupted:
        what = "the time is up" if progress.out_of_time else "stopped"
        print(f"{what}: the same command with --resume goes on ({device}, {out})")
