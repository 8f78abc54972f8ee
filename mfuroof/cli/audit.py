"""``mfuroof audit``: which rows of measured tables mislead, and how far interpolation between them errs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_table

if TYPE_CHECKING:
    from mfuroof.repairs import ComponentRepair
    from mfuroof.tables.audit_report import AuditReport
    from mfuroof.tables.quality_report import TableQuality

__all__ = ["EXAMPLES", "audit"]

EXAMPLES = (
    "mfuroof audit h100_sxm --engine vllm",
    "mfuroof audit h100_sxm --family gemm --out flagged.csv",
    "mfuroof audit l40s --model Qwen/Qwen3-8B --fail-on error",
    "mfuroof audit DIR --info",
)


def audit(
    tables: Annotated[
        str,
        typer.Argument(
            metavar="GPU|FOLDER",
            help="GPU of the embedded kernel tables, or a folder: kernel tables, or MFU files as of InferSim / BLIS.",
        ),
    ],
    engine: o.Engine = "vllm",
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Family of kernel tables; repeat for more. Default: all.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Show too what monotone repair changes in this model's steps on that GPU."),
    ] = None,
    tp: o.Tp = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the flagged rows of kernel tables: .csv or .parquet.")
    ] = None,
    info: Annotated[bool, typer.Option("--info", help="Show plain facts too, not only what is wrong.")] = False,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 1 from this severity on: info, warning or error.")
    ] = "warning",
    json: o.Json = False,
) -> None:
    """Check measured tables: which rows mislead, and how far apart they stand.

    Kernel tables: the error of each interpolation rule for points that were left out, times that fall as work grows,
    rows that all their neighbours contradict, gaps, and what other engines' tables of the same GPU say.

    MFU files: the FLOPs of every row are recomputed from its shape and compared with its latency and the MFU as
    printed, which shows the peak it is relative to.
    """
    from mfuroof._boundary import choice
    from mfuroof.tables.audit_report import SEVERITIES

    worst = SEVERITIES[SEVERITIES.index(choice("severity", fail_on, SEVERITIES)) :]
    if _holds_mfu_files(tables):
        report = _mfu_files(Path(tables), {"--family": family, "--model": model, "--out": out}, info, json)
    else:
        report = _kernel_tables(tables, engine, family, model, tp, out, info, json)
    if any(report.of(severity=severity) for severity in worst):
        raise typer.Exit(1)


def _holds_mfu_files(tables: str) -> bool:
    """Say whether the argument is a folder that is no database of kernel tables."""
    from mfuroof.tables.store import available

    folder = Path(tables)
    return folder.is_dir() and not available(folder) and folder.name not in available(folder.parent)


def _mfu_files(folder: Path, only_kernels: dict[str, Any], info: bool, json: bool) -> AuditReport:
    from mfuroof.errors import InputError, Problem
    from mfuroof.mfu_database import audit as run_audit

    for name, value in only_kernels.items():
        if value:
            raise InputError(Problem(name, f"MFU files in {folder}", "a GPU or a folder of kernel tables"))
    report = run_audit(folder)
    if json:
        print_json(report.to_dict())
    else:
        print(report.text(info=info))
    return report


def _kernel_tables(
    tables: str,
    engine: str,
    families: list[str] | None,
    model: str | None,
    tp: int,
    out: Path | None,
    info: bool,
    json: bool,
) -> AuditReport:
    from mfuroof.engines import ENGINES
    from mfuroof.predict.files import write_table
    from mfuroof.tables.quality_audit import audit_tables

    where = _place(tables)
    measured = ENGINES[engine].tables if engine in ENGINES else engine
    found: TableQuality = audit_tables(where, measured, families=families or None)
    changes = _repairs(model, found.gpu, where, engine, tp) if model else ()
    if out is not None:
        write_table(found.flagged(), out)
    if json:
        from dataclasses import asdict

        extra: dict[str, Any] = {"flagged_path": str(out)} if out is not None else {}
        if model:
            extra["repairs"] = [asdict(change) for change in changes]
        print_json({**found.to_dict(), **extra})
        return found.report
    print(found.text(info=info))
    if model:
        _print_repairs(model, changes)
    if out is not None:
        print(f"{len(found.rows_flagged)} flagged rows, written to {out}")
    return found.report


def _place(tables: str) -> str | Path:
    """Return a folder as a path, a GPU under the name the database has for it."""
    from mfuroof.cli.lookups import measured_gpu
    from mfuroof.errors import InputError, Problem
    from mfuroof.tables.store import available

    folder = Path(tables)
    if folder.is_dir():
        inside = tuple(available(folder))
        return folder / inside[0] if len(inside) == 1 else folder.resolve()
    if len(folder.parts) > 1:
        raise InputError(Problem(tables, "no such folder", "a GPU, or a folder of measured tables"))
    return measured_gpu(tables)


def _repairs(model: str, gpu: str, where: str | Path, engine: str, tp: int) -> tuple[ComponentRepair, ...]:
    from mfuroof.repairs import monotone_repairs

    return monotone_repairs(model, gpu, tp, engine=engine, tables=where if isinstance(where, Path) else None)


def _print_repairs(model: str, changes: tuple[ComponentRepair, ...]) -> None:
    rows = []
    for change in changes:
        at = ", ".join(f"{key} {value}" for key, value in change.largest_at.items()) or "-"
        share = f"{change.changed}/{change.points}"
        rows.append((change.component, share, f"{change.mean:.2%}", f"{change.largest:.2%}", at))
    print()
    print_table(
        f"monotone repair of {model}", ("component", "steps", "mean", "largest", "where"), rows, numbers=(1, 2, 3)
    )
