"""What is wrong with single rows: rounding, warm-up, latency that falls as work grows, rates no GPU reaches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.tables.audit_peak import lines_of
from mfuroof.tables.audit_report import Finding
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peaks import HBM, figures_of
from mfuroof.tables.work import file_bytes, file_flops

__all__ = ["audit_roofline", "audit_rounding", "audit_shape", "audit_times"]

LOSS = 0.05
"""Relative error of a printed MFU from which its rounding counts as a loss."""

FALL = 0.02
"""Fall of latency with more work from which it is reported."""

OUTLIER = 0.15
"""Fall that no tile size explains."""

CACHED = 1.02
"""Memory rates above the HBM bandwidth by this factor come from a cache."""


def audit_rounding(file: BenchFile, peak: float | None) -> list[Finding]:
    """Compare every printed MFU with the one that its latency implies, relative to the peak of the file itself."""
    findings: list[Finding] = []

    def say(code: str, column: str, rows: I64, text: str, numbers: dict[str, Any]) -> None:
        figures = {"column": column, "rows": int(rows.size), **numbers}
        findings.append(Finding("warning", code, file.path, f"{column} {text}", lines_of(file, rows), figures))

    if peak is None:
        return findings
    for column, flops in file_flops(file).items():
        time = "latency_us" if column == "mfu" else column.replace("_mfu", "_proj_us")
        true, printed = flops / (file.latency_s(time) * peak), file.columns[column]
        zeros = np.flatnonzero(printed == 0.0)
        if zeros.size:
            largest = float(true[zeros].max())
            text = f"of {zeros.size} rows is printed as 0, up to {largest:.2g} in truth: a division by zero"
            say("zero-cells", column, zeros, text, {"largest": largest})
        off = np.abs(printed / true - 1.0)
        unit = 10.0 ** -file.decimals[column]
        coarse = np.flatnonzero((printed > 0.0) & (0.5 * unit > LOSS * true) & (off > LOSS))
        if coarse.size and file.layout.family != "grouped_gemm":
            worst = float(off[coarse].max())
            text = f"of {coarse.size} of {len(file)} rows is rounded away by more than {LOSS:.0%}, up to {worst:.0%}"
            say("rounding", column, coarse, text, {"worst": worst, "decimals": file.decimals[column]})
    return findings


def audit_times(file: BenchFile) -> list[Finding]:
    """Look for a first row that is slower than the next larger one, and for latency that falls as work grows."""
    findings: list[Finding] = []
    warm: set[int] = set()
    falls: list[tuple[float, int, int]] = []
    for time, curve in _curves(file):
        latency = file.columns[time]
        drop = 1.0 - latency[curve[1:]] / latency[curve[:-1]]
        for at in np.flatnonzero(drop > FALL):
            if curve[at] == 0:
                warm.add(int(curve[at]))
            else:
                falls.append((float(drop[at]), int(curve[at]), int(curve[at + 1])))
    if warm:
        text = "the first row is slower than a larger shape: a warm-up, not a measurement"
        findings.append(Finding("warning", "warm-up", file.path, text, lines_of(file, np.array([0]))))
    if falls:
        worst, before, after = max(falls)
        rows = np.array(sorted({after for _, _, after in falls}))
        text = (
            f"latency falls as work grows between {len(falls)} neighbours, up to {worst:.1%} "
            f"(lines {file.lines[before]} and {file.lines[after]})"
        )
        numbers = {"pairs": len(falls), "worst": worst}
        severity = "warning" if worst > OUTLIER else "info"
        findings.append(Finding(severity, "not-monotone", file.path, text, lines_of(file, rows), numbers))
    return findings


def _curves(file: BenchFile) -> Iterator[tuple[str, I64]]:
    """Yield a time column and the rows of each curve: everything equal but one axis, ascending along it."""
    counts = [c.name for c in file.layout.columns if c.kind == "count" and c.name != "tokens_per_expert"]
    dtypes = [c.name for c in file.layout.columns if c.kind == "dtype"]
    times = [c.name for c in file.layout.columns if c.kind == "time"]
    for axis in file.layout.axes:
        others = [np.unique(file.columns[name], return_inverse=True)[1] for name in (*counts, *dtypes) if name != axis]
        x = file.columns[axis]
        order = np.lexsort([np.arange(len(file)), x, *others])
        same = np.ones(len(file) - 1, dtype=bool)
        for other in others:
            same &= other[order][1:] == other[order][:-1]
        for rows in np.split(order, np.flatnonzero(~same) + 1):
            distinct = rows[np.append(True, x[rows][1:] != x[rows][:-1])]
            if distinct.size > 1:
                for time in times:
                    yield time, distinct


def audit_roofline(file: BenchFile, peaks: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Look for rows faster than the peak of this GPU, or than its memory."""
    own = figures_of(file.gpu, peaks)
    if own is None:
        return []
    findings = []
    peak, bandwidth = own[1].get(file.layout.peak_dtype), own[1].get(HBM)
    if peak is not None and file.layout.family != "grouped_gemm":
        for column, flops in file_flops(file).items():
            share, what = flops / file.latency_s() / peak, f"{file.layout.peak_dtype} peak of {own[0]}"
            findings += _beyond(file, share, "beyond-roofline", what, column)
    moved = file_bytes(file) if bandwidth is not None else None
    if moved is not None and bandwidth is not None:
        share = moved / file.latency_s() / (bandwidth * CACHED)
        findings += _beyond(file, share, "beyond-bandwidth", f"memory of {own[0]}", "latency_us")
    return findings


def _beyond(file: BenchFile, share: F64, code: str, what: str, column: str) -> list[Finding]:
    rows = np.flatnonzero(share > 1.001)
    if not rows.size:
        return []
    worst = float(share[rows].max())
    compute = code == "beyond-roofline"
    reason = "the latency or the shape is wrong" if compute else "the operands came from a cache"
    text = f"{rows.size} rows are faster than the {what} allows, by up to {worst:.2f} times: {reason}"
    numbers: dict[str, Any] = {"column": column, "rows": int(rows.size), "worst": worst}
    return [Finding("error" if compute else "warning", code, file.path, text, lines_of(file, rows), numbers)]


def audit_shape(file: BenchFile) -> list[Finding]:
    """Describe what a file covers, and how it is written."""
    findings = []
    if not file.has_header:
        text = "has no header: InferSim and BLIS take its first measurement for one and lose it"
        findings.append(Finding("warning", "no-header", file.path, text, lines_of(file, np.array([0]))))
    keys = [c.name for c in file.layout.columns if c.kind in ("count", "dtype") and c.name != "tokens_per_expert"]
    codes = [np.unique(file.columns[name], return_inverse=True)[1] for name in keys]
    groups, inverse, count = np.unique(np.column_stack(codes), axis=0, return_inverse=True, return_counts=True)
    if (count > 1).any():
        findings.append(_repeats(file, inverse.reshape(-1), count))
    order = np.lexsort(codes[::-1])
    if (order != np.arange(len(file))).any():
        text = "rows are not sorted by their key; rules that stop at the first larger row depend on the order"
        findings.append(Finding("info", "unsorted", file.path, text))
    on_axes = np.array([name in file.layout.axes for name in keys])
    curves = len(np.unique(groups[:, ~on_axes], axis=0)) if not on_axes.all() else 1
    ranges = [f"{name} {file.columns[name].min()} .. {file.columns[name].max()}" for name in file.layout.axes]
    product = curves * int(np.prod([np.unique(file.columns[name]).size for name in file.layout.axes]))
    holes = product - len(groups)
    numbers = {"points": len(groups), "curves": curves, "product": product, "holes": holes}
    text = f"{len(groups)} points of {curves} configurations, {', '.join(ranges)}; {holes} of {product} not measured"
    findings.append(Finding("info", "coverage", file.path, text, (), numbers))
    return findings


def _repeats(file: BenchFile, inverse: I64, count: I64) -> Finding:
    time = next(c.name for c in file.layout.columns if c.kind == "time")
    latency, spread = file.columns[time], 0.0
    for group in np.flatnonzero(count > 1):
        repeated = latency[inverse == group]
        spread = max(spread, float(repeated.max() / repeated.min() - 1.0))
    extra = int((count - 1).sum())
    rows = np.flatnonzero(count[inverse] > 1)
    text = f"{extra} rows repeat a key, up to {spread:.1%} apart; their median is used"
    numbers = {"rows": extra, "spread": spread}
    return Finding("warning" if spread > 0.01 else "info", "repeats", file.path, text, lines_of(file, rows), numbers)
