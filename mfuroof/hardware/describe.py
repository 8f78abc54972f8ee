"""A device in words: rows for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfuroof.units import GB, GIB, TB, TERA

if TYPE_CHECKING:
    from mfuroof.hardware.record import Hardware

__all__ = ["rows", "title"]


def title(gpu: Hardware) -> str:
    """Return its name, its maker, and whether kernel tables are embedded."""
    made = " ".join(t for t in (gpu.vendor, gpu.arch) if t)
    tables = "embedded" if gpu.tables else "none embedded"
    return f"{gpu.name}{f' ({made})' if made else ''}, kernel tables: {tables}"


def rows(gpu: Hardware) -> list[tuple[str, str, str]]:
    """Return (figure with its unit, value, where it comes from) rows; dense rates, links in one direction."""
    figures = [(f"{d} TFLOP/s", f"{r / TERA:g}", f"peak_flops_per_s.{d}") for d, r in gpu.peak_flops_per_s.items()]
    figures += [
        ("HBM TB/s", f"{gpu.hbm_bytes_per_s / TB:g}", "hbm_bytes_per_s"),
        ("HBM GiB", f"{gpu.hbm_bytes / GIB:.2f}" if gpu.hbm_bytes else "-", "hbm_bytes"),
        ("link GB/s", _scaled(gpu.nvlink_bytes_per_s), "nvlink_bytes_per_s"),
        ("linked GPUs", str(gpu.num_nvlink_gpus), "num_nvlink_gpus"),
        ("network GB/s", _scaled(gpu.network_bytes_per_s), "network_bytes_per_s"),
        ("PCIe GB/s", _scaled(gpu.pcie_bytes_per_s), "pcie_bytes_per_s"),
        ("SMs", str(gpu.num_sms or "-"), "num_sms"),
        ("power W", "-" if gpu.tdp_w is None else f"{gpu.tdp_w:g}", "tdp_w"),
    ]
    return [(label, value, "; ".join(gpu.sources.get(key, ()))) for label, value, key in figures]


def _scaled(bytes_per_s: float) -> str:
    return f"{bytes_per_s / GB:g}" if bytes_per_s else "-"
