"""Audit a folder of benchmark files: what their MFU is relative to, and which rows mislead whoever reads them."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mfuroof.tables.audit_peak import audit_peak
from mfuroof.tables.audit_report import SEVERITIES, AuditReport, Finding
from mfuroof.tables.audit_rows import audit_roofline, audit_rounding, audit_shape, audit_times
from mfuroof.tables.bench import BenchData
from mfuroof.tables.load import load_bench_data

__all__ = ["audit"]


def audit(
    source: str | os.PathLike[str] | BenchData, peaks: Mapping[str, Mapping[str, float]] | None = None
) -> AuditReport:
    """Audit benchmark files in the InferSim / BLIS layout.

    The FLOPs of every row are recomputed from its shape. A printed MFU and latency, both rounded, allow an interval of
    peaks; the intervals of a file's rows intersect in the peak it was made with, and the catalogue says whose that is.

    Parameters
    ----------
    source
        A folder, or one that was loaded.
    peaks
        The catalogue: GPU name to matmul rates by dtype [FLOP/s] and ``hbm_bytes_per_s``. Default: the peaks that
        ``source`` was loaded with. Without any, the implied peaks are reported, and not judged.

    Raises
    ------
    InputError, TableFormatError
        As `mfuroof.tables.load.load_bench_data`.
    """
    data = source if isinstance(source, BenchData) else load_bench_data(source, peaks)
    catalogue = peaks if peaks is not None else data.peaks or {}
    findings: list[Finding] = []
    for file in data.files:
        explained, peak = audit_peak(file, catalogue)
        own = [*explained, *audit_rounding(file, peak), *audit_times(file), *audit_roofline(file, catalogue)]
        findings += sorted([*own, *audit_shape(file)], key=lambda f: -SEVERITIES.index(f.severity))
    findings += [Finding("warning", "unread", path, "is of no known family and was not read") for path in data.unread]
    return AuditReport(data.folder, len(data.files), sum(map(len, data.files)), tuple(findings))
