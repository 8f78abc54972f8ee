"""A user's MFU tables, read and audited against the peaks of the GPU catalogue."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mfuroof.hardware import get_hardware, known_hardware
from mfuroof.tables import audit as _audit
from mfuroof.tables import load as _load
from mfuroof.tables.audit_report import AuditReport
from mfuroof.tables.bench import BenchData

__all__ = ["audit", "catalogue_peaks", "load_bench_data"]

Peaks = Mapping[str, Mapping[str, float]]


def catalogue_peaks() -> dict[str, dict[str, float]]:
    """Return the matmul rates by dtype [FLOP/s] and ``hbm_bytes_per_s`` of every GPU of the catalogue."""
    devices = [get_hardware(name) for name in known_hardware()]
    return {gpu.name: {**gpu.peak_flops_per_s, "hbm_bytes_per_s": gpu.hbm_bytes_per_s} for gpu in devices}


def load_bench_data(folder: str | os.PathLike[str], peaks: Peaks | None = None) -> BenchData:
    """Load a folder in the InferSim / BLIS layout; MFU is recomputed from latency against the catalogue's peaks.

    Parameters
    ----------
    folder
        The folder that holds ``gemm/``, ``mha/`` and so on, or one with a ``bench_data`` folder that does.
    peaks
        Other peaks than the catalogue's, as `catalogue_peaks` gives them.

    Raises
    ------
    InputError, TableFormatError
        As `mfuroof.tables.load.load_bench_data`.
    """
    return _load.load_bench_data(folder, catalogue_peaks() if peaks is None else peaks)


def audit(source: str | os.PathLike[str] | BenchData, peaks: Peaks | None = None) -> AuditReport:
    """Audit MFU files against the catalogue: which peak, FLOP convention and dtype explain what they print.

    Parameters
    ----------
    source
        A folder, or one that was loaded.
    peaks
        Other peaks than the catalogue's, as `catalogue_peaks` gives them.

    Raises
    ------
    InputError, TableFormatError
        As `mfuroof.tables.audit.audit`.
    """
    return _audit.audit(source, catalogue_peaks() if peaks is None else peaks)
