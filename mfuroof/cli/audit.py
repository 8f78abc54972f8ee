"""``mfuroof audit``: what a folder of MFU files is relative to, and which of its rows mislead."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json

if TYPE_CHECKING:
    from mfuroof.tables.audit_report import AuditReport

__all__ = ["EXAMPLES", "audit"]

EXAMPLES = ("mfuroof audit ./bench_data", "mfuroof audit ./bench_data --info --fail-on error")


def audit(
    folder: Annotated[Path, typer.Argument(help="Folder of MFU files in the InferSim / BLIS layout.")],
    info: Annotated[bool, typer.Option("--info", help="Show plain facts too, not only what is wrong.")] = False,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 1 from this severity on: info, warning or error.")
    ] = "warning",
    json: o.Json = False,
) -> None:
    """Check a folder of MFU files: which peak they are relative to, and which rows mislead.

    The FLOPs of every row are recomputed from its shape and compared with its latency and the MFU as printed.
    """
    from mfuroof._boundary import choice
    from mfuroof.mfu_database import audit as run_audit
    from mfuroof.tables.audit_report import SEVERITIES

    worst = SEVERITIES[SEVERITIES.index(choice("severity", fail_on, SEVERITIES)) :]
    report: AuditReport = run_audit(folder)
    if json:
        print_json(report.to_dict())
    else:
        print(report.text(info=info))
    if any(report.of(severity=severity) for severity in worst):
        raise typer.Exit(1)
