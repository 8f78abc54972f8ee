"""Audit the kernel tables of a GPU: how well rules interpolate them, and which rows contradict their neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from mfuroof.errors import MissingTableError
from mfuroof.tables.audit_report import SEVERITIES, AuditReport, Finding
from mfuroof.tables.quality_findings import Findings, flagged_rows, keys_of, spread
from mfuroof.tables.quality_grid import coverage, gaps, monotone
from mfuroof.tables.quality_lines import Lines, axes_of, bounds, lines, power
from mfuroof.tables.quality_points import Falls, falls, outliers
from mfuroof.tables.quality_report import AxisQuality, Engine, FamilyQuality, FlaggedRow, TableQuality
from mfuroof.tables.quality_rules import leave_one_out
from mfuroof.tables.quality_twice import elsewhere
from mfuroof.tables.schema import LATENCY, family
from mfuroof.tables.store import KernelTables, available, load_tables

__all__ = ["audit_tables"]


def audit_tables(
    tables: KernelTables | str | Path,
    engine: str = "vllm",
    *,
    families: Sequence[str] | None = None,
    root: str | Path | None = None,
) -> TableQuality:
    """Audit measured kernel tables in the layout of `load_tables`.

    Every row is looked at; nothing is changed. What physics implies, and what counts as wrong, is said in
    `mfuroof.tables.quality_lines` and `mfuroof.tables.quality_points`.

    Parameters
    ----------
    tables
        A `KernelTables`, a GPU of the database, or the folder of one GPU.
    engine
        Serving engine; other engines' tables of the same GPU are compared with its own.
    families
        Which families; None for all.
    root
        Folder of GPU folders; None for the embedded database.

    Returns
    -------
    TableQuality
        Leave-one-out errors by rule, falls, gaps and repair by axis; findings; the rows behind them.

    Raises
    ------
    UnknownNameError
        No such GPU, engine or family; the nearest names are given.
    MissingTableError
        There are no tables there, or none of a family that was asked for.
    TableFormatError
        A file is damaged.

    Examples
    --------
    >>> found = audit_tables("a100_sxm", families=["attn_decode"])
    >>> kv_len = found.families[0].axes[1]
    >>> kv_len.axis, kv_len.rules["linear"].median < kv_len.rules["floor"].median
    ('kv_len', True)
    """
    own = tables if isinstance(tables, KernelTables) else load_tables(tables, engine, root=root)
    names = own.families if families is None else tuple(family(name).name for name in dict.fromkeys(families))
    others = [load_tables(own.folder, name) for name in _engines(own) if name != own.engine]
    figures, findings, flagged, rows = [], [], [], 0
    for name in names:
        table = own.family(name)
        beside = {other.engine: other.family(name) for other in others if other.has(name)}
        found = _audit_family(table, name, f"{name}/{own.engine}.parquet", beside)
        figures.append(found[0])
        findings += sorted(found[1], key=lambda f: -SEVERITIES.index(f.severity))
        flagged += found[2]
        rows += table.num_rows
    if not figures:
        raise MissingTableError(f"any family of {own.gpu}, {own.engine}", own.families)
    report = AuditReport(f"{own.gpu}, {own.engine}", len(figures), rows, tuple(findings))
    return TableQuality(own.gpu, own.engine, tuple(figures), report, tuple(flagged))


def _engines(own: KernelTables) -> tuple[str, ...]:
    return tuple(available(own.folder.parent).get(own.folder.name, ()))


def _audit_family(
    table: pa.Table, name: str, file: str, beside: Mapping[str, pa.Table]
) -> tuple[FamilyQuality, list[Finding], list[FlaggedRow]]:
    time_s = table.column(LATENCY).to_numpy()
    lined = [lines(table, name, axis) for axis in axes_of(name)]
    fallen = {of.axis: falls(of) for of in lined}
    wrong = outliers(time_s, lined, {of.axis: bounds(of, power(name, of.axis)) for of in lined})
    twice = elsewhere(table, name, beside)
    axes = tuple(_axis(table, name, of, fallen[of.axis]) for of in lined)
    configurations, product = coverage(table, name)
    figures = FamilyQuality(
        name,
        table.num_rows,
        configurations,
        product,
        int(wrong.slow.sum()),
        int((~wrong.slow).sum()),
        axes,
        tuple(Engine(e.engine, e.row.size, *spread(e.apart)) for e in twice),
    )
    say = Findings(table, name, file)
    say.outliers(wrong)
    say.axes(figures)
    say.elsewhere(twice)
    return figures, say.findings, flagged_rows(table, name, time_s, wrong, fallen, twice)


def _axis(table: pa.Table, name: str, of: Lines, fallen: Falls) -> AxisQuality:
    worst = keys_of(table, name, int(fallen.before[0])) if fallen.size.size else {}
    return AxisQuality(
        of.axis,
        leave_one_out(of, power(name, of.axis)),
        fallen.pairs,
        fallen.any,
        fallen.size.size,
        fallen.worst,
        worst,
        gaps(table, name, of).missing,
        monotone(of),
    )
