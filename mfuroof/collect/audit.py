"""Judge collected tables before anybody relies on them: against their ceilings, their neighbours and their noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from mfuroof._types import F64
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.tables.audit_report import SEVERITIES, AuditReport, Finding
from mfuroof.tables.quality_audit import audit_tables
from mfuroof.tables.schema import LATENCY
from mfuroof.tables.store import KernelTables

__all__ = ["audit_collected"]

BEYOND = 1.05
"""Rates this far above the measured ceiling cannot be right."""
WIDE_SPREAD = 0.1


def audit_collected(
    tables: KernelTables, hardware: Hardware | None = None, *, noisy_ceilings: bool = False
) -> AuditReport:
    """Audit collected tables: what `mfuroof.tables.quality_audit` says of any, and what only their maker knows.

    Parameters
    ----------
    tables
        Tables, collected or others.
    hardware
        Ceilings of the device; None where they are not known: rates are not judged then.
    noisy_ceilings
        The ceilings scatter as much as the rows, as on a processor that others use too: a row beyond them is then a
        warning.

    Returns
    -------
    AuditReport
        Beside the findings on neighbours, falls and gaps: ``beyond-ceiling`` (error; a warning where ceilings are
        noisy), a product faster than the fastest one measured; ``noise``, ``left-out`` and ``clocks``, what the
        provenance says about spread, shapes without a result and a device that was held back; ``no-provenance``.
    """
    general = audit_tables(tables).report
    findings: list[Finding] = []
    for name in tables.families:
        path = f"{name}/{tables.engine}.parquet"
        own = [f for f in general.findings if f.file == path]
        own += [*_beyond(path, name, tables.family(name), hardware, noisy_ceilings), *_recorded(path, tables, name)]
        findings += sorted(own, key=lambda f: -SEVERITIES.index(f.severity))
    return AuditReport(str(tables.folder), general.files, general.rows, tuple(findings))


def _flops(name: str, table: pa.Table) -> F64 | None:
    """Return the useful work of each row of a table (n,), None for a family without matrix products. [FLOP]"""
    maker = _FLOPS.get(name)
    if maker is None:
        return None
    columns = {
        f.name: table.column(f.name).to_numpy().astype(np.float64)
        for f in table.schema
        if pa.types.is_integer(f.type)
    }
    return maker(columns)


def _prefill_flops(c: dict[str, F64]) -> F64:
    seen = np.where(c["sliding_window"] > 0, np.minimum(c["new_tokens"], c["sliding_window"]), c["new_tokens"])
    return 4.0 * c["batch_size"] * c["num_attention_heads"] * c["head_dim"] * seen * (c["new_tokens"] - seen / 2.0)


def _decode_flops(c: dict[str, F64]) -> F64:
    seen = np.where(c["sliding_window"] > 0, np.minimum(c["kv_len"], c["sliding_window"]), c["kv_len"])
    return 4.0 * c["batch_size"] * c["num_attention_heads"] * c["head_dim"] * seen


_FLOPS: dict[str, Callable[[dict[str, F64]], F64]] = {
    "gemm": lambda c: 2.0 * c["m"] * c["n"] * c["k"],
    "attn_prefill": _prefill_flops,
    "attn_decode": _decode_flops,
}


def _beyond(path: str, name: str, table: pa.Table, hardware: Hardware | None, noisy: bool) -> list[Finding]:
    flops = _flops(name, table)
    if hardware is None or flops is None:
        return []
    dtype = "dtype" if name == "gemm" else "attn_dtype"
    peak = np.array([hardware.peak(d) for d in table.column(dtype).to_pylist()])
    share = flops / table.column(LATENCY).to_numpy() / peak
    bad = int((share > BEYOND).sum())
    if not bad:
        text = f"the fastest row reaches {share.max():.0%} of the ceiling"
        return [Finding("info", "rate", path, text, numbers={"largest_share": float(share.max())})]
    worst = int(np.argmax(share))
    at = {k: v for k, v in table.slice(worst, 1).to_pylist()[0].items() if k != LATENCY}
    text = f"{bad} rows are faster than the ceiling of the device, up to {share[worst]:.2f} times, at {at}"
    numbers = {"rows": bad, "largest_share": float(share[worst]), "at": at}
    if noisy:
        text += "; the ceilings of a processor scatter as its kernels do, and its best rate is taken for the ceiling"
    return [Finding("warning" if noisy else "error", "beyond-ceiling", path, text, numbers=numbers)]


def _recorded(path: str, tables: KernelTables, name: str) -> list[Finding]:
    """Return what the provenance of a collected table says against it."""
    try:
        record = tables.provenance(name)
    except MissingTableError:
        return [Finding("warning", "no-provenance", path, "nothing says how this was measured")]
    found = []
    spread = record.get("noise", {}).get("spread_p90", 0.0)
    if spread > WIDE_SPREAD:
        text = f"a tenth of the rows scatter by more than {spread:.0%} from one sample to the next"
        found.append(Finding("warning", "noise", path, text, numbers=dict(record["noise"])))
    left_out = record.get("left_out", {})
    if left_out:
        severity = "warning" if {"wrong", "failed", "fatal"} & set(left_out) else "info"
        text = ", ".join(f"{n} {status}" for status, n in sorted(left_out.items())) + ": no rows"
        found.append(Finding(severity, "left-out", path, text, numbers=dict(left_out)))
    clocks = record.get("clocks", {})
    hot = {k: n for k, n in clocks.get("throttle", {}).items() if k not in ("idle", "power_cap", "applications")}
    if hot:
        text = "the device was held back: " + ", ".join(f"{k} at {n} points" for k, n in hot.items())
        found.append(Finding("warning", "clocks", path, text, numbers=hot))
    elif clocks.get("sm_mhz") == "unreadable":
        found.append(Finding("info", "clocks", path, "clocks could not be read: throttling would not have been seen"))
    return found
