"""Which peak, FLOP convention and dtype explain the MFU that a file prints, and whether they can be this GPU's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.tables.audit_report import Finding
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peaks import HBM, PeakInterval, figures_of, implied_peak, row_intervals
from mfuroof.tables.work import file_flops
from mfuroof.units import TERA

__all__ = ["Explanation", "audit_peak", "explanations"]

TOLERANCE = 1e-3
"""A datasheet's peak may be rounded: 989.4 where a file was made with 989.5."""

ROUTED_TOLERANCE = 0.15
"""Routed tokens are random and padded: a grouped GEMM's median agrees with a peak to this."""

CAUSAL = {"causal half": 1.0, "full square": 2.0, "square / 1.8": 2.0 / 1.8}
PLAIN = {"all FLOPs": 1.0}

Peaks = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Explanation:
    """A peak that explains a column: the figure of a GPU and dtype under a FLOP convention."""

    gpu: str
    dtype: str
    convention: str
    peak_flops_per_s: float

    def __str__(self) -> str:
        return f"{self.peak_flops_per_s / TERA:.5g} TFLOP/s, {self.dtype} of {self.gpu}, {self.convention}"


def audit_peak(file: BenchFile, peaks: Peaks) -> tuple[list[Finding], float | None]:
    """Explain every MFU column of a file.

    Returns
    -------
    list of Finding
    float or None
        The peak that the (last) column is relative to, under the layout's FLOP convention. [FLOP/s]
    """
    findings: list[Finding] = []
    relative_to = None
    for column in file_flops(file):
        interval = _interval(file, column)
        if interval is None:
            continue
        found = explanations(file, interval, peaks)
        finding = _judge(file, column, interval, found, peaks)
        default = next(iter(_conventions(file)))
        same = [e.peak_flops_per_s for e in found[:1] if e.convention == default]
        relative_to = same[0] if same else interval.middle
        findings.append(finding)
        findings.extend(_unexplained(file, column, interval))
    return findings, relative_to


def explanations(file: BenchFile, interval: PeakInterval, peaks: Peaks) -> list[Explanation]:
    """Return what explains an interval, the likeliest first: this GPU, its usual dtype, the layout's convention."""
    own = figures_of(file.gpu, peaks)
    own_name = own[0] if own else None
    names = [*([own_name] if own_name else []), *(name for name in sorted(peaks) if name != own_name)]
    found = []
    for rank, (convention, factor) in enumerate(_conventions(file).items()):
        low, high = interval.low * factor * (1.0 - TOLERANCE), interval.high * factor * (1.0 + TOLERANCE)
        for name in names:
            for dtype, peak in _rates(peaks[name]):
                if low <= peak <= high:
                    order = (name != own_name, rank, dtype != file.layout.peak_dtype)
                    found.append((order, Explanation(name, dtype, convention, peak)))
    found.sort(key=lambda item: item[0])
    return [explanation for _, explanation in found]


def _conventions(file: BenchFile) -> dict[str, float]:
    return CAUSAL if file.layout.causal else PLAIN


def _rates(figures: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    for dtype, peak in figures.items():
        if not dtype.endswith(("_per_s", "_bytes")) and dtype != HBM:
            yield dtype, float(peak)


def _interval(file: BenchFile, column: str) -> PeakInterval | None:
    interval = implied_peak(file, column)
    if interval is None or file.layout.family != "grouped_gemm":
        return interval
    low, high = row_intervals(file, column)
    middle = 0.5 * (low + high)
    median = float(np.median(middle[np.isfinite(middle)]))
    within = np.abs(middle / median - 1.0) < ROUTED_TOLERANCE
    return PeakInterval(
        median * (1.0 - ROUTED_TOLERANCE), median * (1.0 + ROUTED_TOLERANCE), int(within.sum()), interval.rows
    )


def _judge(
    file: BenchFile, column: str, interval: PeakInterval, found: list[Explanation], peaks: Peaks
) -> Finding:
    own = figures_of(file.gpu, peaks)
    scale = f"{interval.low / TERA:.6g} .. {interval.high / TERA:.6g} TFLOP/s"
    numbers = {
        "column": column,
        "peak_low_flops_per_s": interval.low,
        "peak_high_flops_per_s": interval.high,
        "rows": interval.rows,
        "rows_agreeing": interval.agreeing,
        "explanations": [str(e) for e in found],
    }

    def say(severity: str, code: str, text: str) -> Finding:
        return Finding(severity, code, file.path, f"{column} {text}", (), numbers)

    if own is None:
        text = f"is relative to {scale}; no peaks of {file.gpu!r} are known"
        return say("warning" if peaks else "info", "no-peaks", text)
    if not found:
        return say("error", "denominator", f"is relative to {scale}, which is no known GPU's peak")
    best = found[0]
    default, usual = next(iter(_conventions(file))), file.layout.peak_dtype
    if best.gpu != own[0]:
        others = sorted({e.gpu for e in found} - {best.gpu})
        text = f"is relative to {best}, not to {own[0]}"
        return say("error", "denominator", text + (f" (or {', '.join(others)})" if others else ""))
    if best.convention != default:
        return say("warning", "flop-convention", f"counts another share of the FLOPs: {best}")
    if best.dtype == usual or own[1].get(usual) == best.peak_flops_per_s:
        return say("info", "peak", f"is relative to {best} ({scale})")
    fastest = _fastest(file, column)
    if fastest > best.peak_flops_per_s * (1.0 + TOLERANCE):
        text = f"is relative to {best}, but rows reach {fastest / TERA:.5g} TFLOP/s: the kernel computes in {usual}"
        return say("error", "denominator", text)
    return say("warning", "denominator", f"is relative to {best}; files of this family are relative to {usual}")


def _fastest(file: BenchFile, column: str) -> float:
    time = "latency_us" if column == "mfu" else column.replace("_mfu", "_proj_us")
    return float(np.max(file_flops(file)[column] / file.latency_s(time)))


def _unexplained(file: BenchFile, column: str, interval: PeakInterval) -> list[Finding]:
    """Name the rows whose printed MFU does not follow from their latency, where the others' does."""
    if file.layout.family == "grouped_gemm":
        text = "follows from latency only roughly: routed tokens are random in decode and padded in prefill"
        share = {"column": column, "rows": interval.rows, "rows_within": interval.agreeing, "within": ROUTED_TOLERANCE}
        return [Finding("info", "unexplained-rows", file.path, f"{column} {text}", (), share)]
    low, high = row_intervals(file, column)
    off: F64 = np.maximum(low / interval.middle, interval.middle / high) - 1.0
    rows = np.flatnonzero(off > TOLERANCE)
    if not rows.size:
        return []
    worst = float(off[rows].max())
    text = f"of {rows.size} of {len(file)} rows does not follow from their latency, by up to {worst:.2%}"
    numbers = {"column": column, "rows": int(rows.size), "worst": worst}
    return [Finding("warning", "unexplained-rows", file.path, f"{column} {text}", lines_of(file, rows), numbers)]


def lines_of(file: BenchFile, rows: np.ndarray) -> tuple[int, ...]:
    """Return the lines of the first twenty rows."""
    return tuple(int(line) for line in file.lines[rows[:20]])
