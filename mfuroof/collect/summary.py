"""What a journal says as a whole: counts, ceilings, launches, and the constants an evaluator takes from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mfuroof._types import F64
from mfuroof.collect.outliers import best_results
from mfuroof.hardware import Hardware, catalogue_document, get_hardware
from mfuroof.units import GIB, TB, TERA

__all__ = ["Ceilings", "ceilings", "counts", "device_document", "elementwise_constants", "measured_hardware", "noise"]

TRAFFIC = {"add": 6.0, "rms_norm": 4.0, "gather": 4.0, "silu_mul": 6.0}
"""Bytes an elementwise kernel moves for each element of its output: 16-bit operands and result. [bytes]"""
SINGLE_KERNELS = ("add", "rms_norm", "gather")
"""Operations that are one kernel wherever they were measured."""
PROCESSORS = ("cpu", "torch-cpu")
"""Kinds of devices that are no GPU."""


@dataclass(frozen=True)
class Ceilings:
    """Best rates that were measured: a copy counted as read and written, and square products by dtype."""

    bytes_per_s: float
    flops_per_s: dict[str, float]


def ceilings(results: Sequence[dict[str, Any]], *, every_product: bool = False) -> Ceilings | None:
    """Return the measured ceilings; None unless both a copy and a 16-bit product are among the results.

    With ``every_product`` the products of the GEMM table count too: on a device whose rates swing as widely as a shared
    processor's, the best rate seen is the better ceiling.
    """
    rate = 0.0
    flops: dict[str, float] = {}
    for result in _right(results, "ceiling"):
        size = float(result["shape"]["size"])
        if result["shape"]["op"] == "copy":
            rate = max(rate, 2.0 * size / result["latency_s"])
        else:
            dtype = result["shape"]["dtype"]
            flops[dtype] = max(flops.get(dtype, 0.0), 2.0 * size**3 / result["latency_s"])
    if every_product:
        for result in _right(results, "gemm"):
            shape = result["shape"]
            if shape["dtype"] in flops:
                work = 2.0 * shape["m"] * shape["n"] * shape["k"]
                flops[shape["dtype"]] = max(flops[shape["dtype"]], work / result["latency_s"])
    return Ceilings(rate, flops) if rate and "bf16" in flops else None


def is_processor(device: Mapping[str, Any]) -> bool:
    """Say whether a device is a processor, whose ceilings are as noisy as its kernels, and no GPU."""
    return str(device["kind"]) in PROCESSORS


def measured_hardware(
    results: Sequence[dict[str, Any]], device: dict[str, Any], gpu: str, *, every_product: bool = False
) -> Hardware | None:
    """Return the device with its measured ceilings (see `ceilings`) in place of datasheet figures; None without any.

    What is not measured (links, power) comes from the catalogue where it knows the device, else stays unset.
    """
    found = ceilings(results, every_product=every_product)
    if found is None:
        return None
    known = _catalogued(gpu)
    peaks = {f"{d}_tflops_per_s": rate / TERA for d, rate in found.flops_per_s.items() if d in ("bf16", "fp8")}
    source = ("measured by mfuroof collect",)
    fields: dict[str, Any] = {}
    if known is not None:
        fields = {
            "vendor": known.vendor,
            "arch": known.arch,
            "compute_capability": known.compute_capability,
            "num_nvlink_gpus": known.num_nvlink_gpus,
            "num_sms": known.num_sms,
            "tdp_w": known.tdp_w,
            "nvlink_gb_per_s": known.nvlink_bytes_per_s / 1e9,
            "pcie_gb_per_s": known.pcie_bytes_per_s / 1e9,
        }
    return Hardware.from_figures(
        gpu,
        hbm_tb_per_s=found.bytes_per_s / TB,
        hbm_gib=float(device["memory_bytes"]) / GIB,
        sources={f"peak_flops_per_s.{d}": source for d in found.flops_per_s if d in ("bf16", "fp8")}
        | {"hbm_bytes_per_s": source},
        **peaks,
        **fields,
    )


def device_document(hardware: Hardware) -> dict[str, Any]:
    """Return a catalogue of that one device, ready for `mfuroof.load_catalogue`."""
    return catalogue_document([hardware])


def elementwise_constants(results: Sequence[dict[str, Any]], bytes_per_s: float) -> dict[str, float] | None:
    """Return launch and bandwidth share of elementwise kernels, as `CostParams` names them; None with too few points.

    The launch is the median of the smallest kernels; the share that of the median of the largest, over the copy.
    """
    rows = [
        (TRAFFIC[r["shape"]["op"]] * r["shape"]["width"] * r["shape"]["tokens"], r["latency_s"])
        for r in _right(results, "elementwise")
        if r["shape"]["op"] in SINGLE_KERNELS
    ]
    if len(rows) < 6 or not bytes_per_s:
        return None
    moved, latency_s = (np.array(column) for column in zip(*rows, strict=True))
    launch_s = float(np.median(latency_s[moved <= np.quantile(moved, 0.2)]))
    large = moved >= np.quantile(moved, 0.8)
    share = moved[large] / (np.maximum(latency_s[large] - launch_s, 1e-12) * bytes_per_s)
    efficiency = float(np.clip(np.median(share), 0.01, 1.0))
    return {"elementwise_launch_s": launch_s, "elementwise_bandwidth_efficiency": efficiency}


def counts(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return points by family and status."""
    table: dict[str, Counter[str]] = {}
    for result in best_results(results).values():
        table.setdefault(result["family"], Counter())[result["status"]] += 1
    return {family: dict(sorted(c.items())) for family, c in table.items()}


def noise(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return percentiles of the spread of the results that count; empty where there are none. [fraction]"""
    spread: F64 = np.array([r["spread"] for r in best_results(results).values() if r["status"] == "ok"])
    if not spread.size:
        return {}
    names = ("spread_median", "spread_p90", "spread_max")
    return dict(zip(names, (float(x) for x in np.percentile(spread, (50, 90, 100))), strict=True))


def _right(results: Sequence[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    return [r for r in best_results(results).values() if r["family"] == family and r["status"] == "ok"]


def _catalogued(gpu: str) -> Hardware | None:
    from mfuroof.errors import UnknownNameError

    try:
        return get_hardware(gpu)
    except UnknownNameError:
        return None
