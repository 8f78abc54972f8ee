"""Read the MFU of one benchmark file at any shape, by a generic rule.

The measured latencies are compiled once. Inside the measured range a rule reads the recomputed MFU, or, for
"linear", blends latency and returns the MFU it implies. GEMM latencies are kept per unit of weight, so that the site
that stands in for another weight lends its utilisation, not its time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof import lookup
from mfuroof._types import F64
from mfuroof.core.sources import CLAMPED, EXTRAPOLATED
from mfuroof.errors import InputError, Problem
from mfuroof.lookup.outside import edges
from mfuroof.lookup.run import Table
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.compile import compile_1d, compile_2d, compile_sites, decompile
from mfuroof.tables.compiled import GemmSites
from mfuroof.tables.work import grouped_flops, key_bytes, key_flops, kv_bytes, rank_key

__all__ = ["Measured", "compile_file", "read_mfu"]


@dataclass(frozen=True, eq=False)
class Measured:
    """One file's latencies, compiled, and what a query of it does.

    Attributes
    ----------
    table
        Latency over the file's axes. [s; of GEMM sites s per 2 k n FLOP]
    work
        Function of the coordinates: useful FLOPs (of GEMM sites, tokens).
    flops, traffic
        Functions of the coordinates for the roofline; ``traffic`` is None where the shape does not tell the bytes.
    """

    table: Table
    work: Callable[..., F64]
    flops: Callable[..., F64]
    traffic: Callable[..., F64] | None

    def mfu(self, peak: float) -> Table:
        """Return the MFU recomputed at the measured points, relative to a peak. [-]"""
        table = self.table
        at = decompile(table)
        latency = at.pop("values")
        coordinates = (at["m"], at["k"], at["n"]) if isinstance(table, GemmSites) else tuple(at.values())
        return dataclasses.replace(table, values=self.work(*coordinates) / (latency * peak))


def compile_file(
    file: BenchFile, latency: str, dtypes: Mapping[str, str], constants: Mapping[str, float]
) -> Measured | None:
    """Compile the rows of a file that have these dtypes and constants; None if there is none."""
    keep = file.select(**dtypes)
    for name, value in constants.items():
        keep &= file.count(name) == value
    if not keep.any():
        return None
    family, phase, axes = file.layout.family, file.layout.phase, file.layout.axes
    time = file.latency_s(latency)[keep]
    points = [file.count(name)[keep] for name in axes]
    if family == "gemm":
        m, k, n = (file.count(name)[keep] for name in "mkn")
        table: Table = compile_sites(m, k, n, time / (2.0 * k * n))
        shape_of = _shapes(("m", "k", "n"), {})
        return Measured(table, lambda m, k, n: np.asarray(m), *_roofline(file, shape_of, dtypes))
    if len(axes) == 1:
        table = compile_1d(axes[0], points[0], time)
    else:
        table = compile_2d((axes[0], axes[1]), points[0], points[1], time)
    shape_of = _shapes(axes, constants)
    flops, traffic = _roofline(file, shape_of, dtypes)
    if family == "grouped_gemm":
        projection = latency.removesuffix("_proj_us")

        def routed(tokens: F64) -> F64:
            return grouped_flops(projection, constants, tokens)

        return Measured(table, routed, routed, None)
    return Measured(table, flops, flops, traffic if phase else None)


def _shapes(axes: tuple[str, ...], constants: Mapping[str, float]) -> Callable[..., dict[str, Any]]:
    return lambda *at: {**constants, **dict(zip(axes, at, strict=True))}


def _roofline(
    file: BenchFile, shape_of: Callable[..., dict[str, Any]], dtypes: Mapping[str, str]
) -> tuple[Callable[..., F64], Callable[..., F64] | None]:
    family, phase, key = file.layout.family, file.layout.phase, rank_key(file)
    per_element = kv_bytes(dtypes.get("kv_dtype", "bf16"))

    def flops(*at: F64) -> F64:
        return key_flops(family, phase, key, shape_of(*at))

    def traffic(*at: F64) -> F64:
        moved = key_bytes(family, phase, key, shape_of(*at), per_element)
        assert moved is not None
        return moved

    return flops, traffic if family in ("gemm", "mha", "mla") else None


def read_mfu(
    measured: Measured,
    at: Sequence[F64],
    rule: str,
    outside: str | None,
    peak: float,
    bandwidth: Callable[[], float],
    details: bool,
) -> lookup.Details:
    """Read the MFU at flat coordinates.

    Parameters
    ----------
    measured
        Compiled file.
    at
        Coordinates (q,) each, in the order of the table.
    rule, outside
        Generic rule, and one policy for every axis; "clamp" is the MFU at the edge.
    peak
        Rate that the MFU is relative to. [FLOP/s]
    bandwidth
        Called where utilisation of the roofline is to be held. [bytes/s]
    details
        Whether source and distance are wanted; empty otherwise.
    """
    linear = rule == "linear"
    table = measured.table if linear else measured.mfu(peak)
    at, keeps_edge = list(at), outside in ("clamp", "hold")
    found = lookup.read(table, *at, rule=rule, outside="clamp" if keeps_edge else outside, details=details)
    values, source, distance = found if details else (found, np.empty(0, np.uint8), np.empty(0))
    place = edges(table, lookup.RULES[rule], at) if keeps_edge else at
    if linear:  # at the edge, so that beyond it the MFU stays what it is there
        values = _implied(measured, place, values, peak)
    if outside == "hold":
        moved = np.any([point != edge for point, edge in zip(at, place, strict=True)], axis=0) & ~np.isnan(values)
        if moved.any():
            there, here = (_attainable(measured, points, moved, peak, bandwidth) for points in (at, place))
            values[moved] *= there / here
        source = np.where(source == CLAMPED, np.uint8(EXTRAPOLATED), source)
    return lookup.Details(values, source, distance)


def _implied(measured: Measured, at: Sequence[F64], latency: F64, peak: float) -> F64:
    with np.errstate(invalid="ignore"):
        return np.asarray(measured.work(*at) / (latency * peak), dtype=np.float64)


def _attainable(
    measured: Measured, at: Sequence[F64], rows: Any, peak: float, bandwidth: Callable[[], float]
) -> F64:
    """Return the share of the peak that the roofline allows at some of the coordinates."""
    if measured.traffic is None:
        raise InputError(Problem("outside", '"hold"', '"clamp", "nan" or "raise" for a family without known traffic'))
    points = [point[rows] for point in at]
    intensity = measured.flops(*points) / measured.traffic(*points)
    return np.asarray(np.minimum(1.0, intensity * bandwidth() / peak))
