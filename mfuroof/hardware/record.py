"""The `Hardware` record: what a device can do, in base SI units, with a source for every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mfuroof._boundary import Problems
from mfuroof._html import html_table
from mfuroof.hardware._checks import MAX_RATE, check_text, clean_capability, clean_peaks, clean_sources, scaled_number
from mfuroof.hardware.rates import lane_of, native_lane, rate_of
from mfuroof.units import GB, GIB, TB, TERA

__all__ = ["Hardware"]


@dataclass(frozen=True, repr=False)
class Hardware:
    """One accelerator, per device; every field can be changed with `dataclasses.replace`.

    Parameters
    ----------
    name
        Identifier, for instance ``"h100_sxm"``.
    peak_flops_per_s
        Dense tensor-core rates by compute dtype (bf16, fp16, fp8, int8, fp4, tf32) with 32-bit accumulation; an
        absent key means "not native". At least bf16 or fp16. [FLOP/s]
    hbm_bytes_per_s
        Datasheet memory bandwidth, underated. [bytes/s]
    hbm_bytes
        Memory the driver shows, less than what is printed on the box; 0 where it is not stated. [bytes]
    vendor, arch
        Free text; ``vendor`` "AMD" switches NVIDIA's own formats to the 16-bit rate.
    compute_capability
        CUDA compute capability, for instance ``(9, 0)``; None elsewhere.
    nvlink_bytes_per_s
        Fast link between the devices of one domain (NVLink, Infinity Fabric, ICI), one direction; 0 for none. [bytes/s]
    num_nvlink_gpus
        Devices that reach one another at that rate: 8 in an SXM board, 2 for a PCIe bridge, 72 in an NVL72 rack, 1
        for none.
    network_bytes_per_s
        Network between nodes per device, one direction; 0 where it is not stated. [bytes/s]
    pcie_bytes_per_s
        Host link, one direction; 0 where it is not stated. [bytes/s]
    num_sms
        Streaming multiprocessors, compute units or their like; None where unknown.
    tdp_w
        Board power; None where unknown. [W]
    tables
        Name of the folder of embedded kernel tables; None where there are none.
    sources
        Where each figure comes from, by field name (rates as ``peak_flops_per_s.bf16``).

    Raises
    ------
    InputError
        With every field that is out of range.

    Examples
    --------
    >>> gpu = Hardware.from_figures("mine", bf16_tflops_per_s=400, hbm_tb_per_s=2, hbm_gib=64)
    >>> gpu.ridge_point("bf16")
    200.0
    """

    name: str
    peak_flops_per_s: Mapping[str, float]
    hbm_bytes_per_s: float
    hbm_bytes: float = 0.0
    vendor: str = ""
    arch: str = ""
    compute_capability: tuple[int, int] | None = None
    nvlink_bytes_per_s: float = 0.0
    num_nvlink_gpus: int = 8
    network_bytes_per_s: float = 0.0
    pcie_bytes_per_s: float = 0.0
    num_sms: int | None = None
    tdp_w: float | None = None
    tables: str | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        problems = Problems()
        clean: dict[str, Any] = {"peak_flops_per_s": clean_peaks(self.peak_flops_per_s, problems)}
        for key in ("name", "vendor", "arch"):
            check_text(key, getattr(self, key), problems, empty_ok=key != "name")
        if self.tables is not None:
            check_text("tables", self.tables, problems, empty_ok=False)
        clean["hbm_bytes_per_s"] = problems.number("hbm_bytes_per_s", self.hbm_bytes_per_s, 0, MAX_RATE, open_low=True)
        for key in ("hbm_bytes", "nvlink_bytes_per_s", "network_bytes_per_s", "pcie_bytes_per_s"):
            clean[key] = problems.number(key, getattr(self, key), 0, MAX_RATE)
        clean["num_nvlink_gpus"] = problems.positive_int("num_nvlink_gpus", self.num_nvlink_gpus)
        if self.num_sms is not None:
            clean["num_sms"] = problems.positive_int("num_sms", self.num_sms)
        if self.tdp_w is not None:
            clean["tdp_w"] = problems.number("tdp_w", self.tdp_w, 0, 1e6, open_low=True)
        clean["compute_capability"] = clean_capability(self.compute_capability, problems)
        clean["sources"] = clean_sources(self.sources, problems)
        problems.raise_if_any()
        for key, value in clean.items():
            object.__setattr__(self, key, value)

    def native(self, dtype: str) -> bool:
        """Tell whether products of that format run on tensor cores of its own width.

        Raises
        ------
        UnknownNameError
            If no format of that name is known.
        """
        return native_lane(lane_of(dtype), self.peak_flops_per_s, self.vendor)

    def peak(self, dtype: str) -> float:
        """Return the dense rate at which products of that format really run.

        The native rate, or else the rate of the 16-bit type to which the weights are expanded: int4 weights on any
        device, FP8 on Ampere, NVFP4 on Hopper. ``fp32`` runs as tf32. [FLOP/s]

        Raises
        ------
        UnknownNameError
            If no format of that name is known.
        InputError
            For fp32 on a device without a tf32 rate.
        """
        return rate_of(lane_of(dtype), self.peak_flops_per_s, self.vendor, self.name)

    def ridge_point(self, dtype: str) -> float:
        """Return the arithmetic intensity (peak / bandwidth) above which that format is bound by compute.

        [FLOP/byte]
        """
        return self.peak(dtype) / self.hbm_bytes_per_s

    @classmethod
    def from_figures(
        cls,
        name: str,
        *,
        bf16_tflops_per_s: float,
        hbm_tb_per_s: float,
        hbm_gib: float = 0.0,
        fp16_tflops_per_s: float | None = None,
        fp8_tflops_per_s: float = 0.0,
        int8_tflops_per_s: float = 0.0,
        fp4_tflops_per_s: float = 0.0,
        tf32_tflops_per_s: float = 0.0,
        nvlink_gb_per_s: float = 0.0,
        network_gb_per_s: float = 0.0,
        pcie_gb_per_s: float = 0.0,
        **fields: Any,
    ) -> Hardware:
        """Make a device from figures in the units of datasheets.

        Parameters
        ----------
        name
            Identifier of the device.
        bf16_tflops_per_s, fp16_tflops_per_s, fp8_tflops_per_s, int8_tflops_per_s, fp4_tflops_per_s, tf32_tflops_per_s
            Dense rates; 0 means not native. ``fp16`` None means as bf16. [1e12 FLOP/s]
        hbm_tb_per_s
            Memory bandwidth. [1e12 bytes/s]
        hbm_gib
            Memory that the driver shows; 0 where it does not matter (no KV capacity then). [2**30 bytes]
        nvlink_gb_per_s, network_gb_per_s, pcie_gb_per_s
            Links per device, one direction. [1e9 bytes/s]
        **fields
            Any other field of `Hardware`, as it is: vendor, arch, compute_capability, num_nvlink_gpus, num_sms, tdp_w,
            tables, sources.

        Raises
        ------
        InputError
            With every figure that is out of range, and every unknown field.
        """
        problems = Problems()
        given = {
            "bf16": bf16_tflops_per_s,
            "fp16": fp16_tflops_per_s,
            "fp8": fp8_tflops_per_s,
            "int8": int8_tflops_per_s,
            "fp4": fp4_tflops_per_s,
            "tf32": tf32_tflops_per_s,
        }
        rates = {d: scaled_number(problems, f"{d}_tflops_per_s", v, TERA) for d, v in given.items() if v is not None}
        rates.setdefault("fp16", rates["bf16"])
        scaled: dict[str, Any] = {
            "hbm_bytes_per_s": scaled_number(problems, "hbm_tb_per_s", hbm_tb_per_s, TB, open_low=True),
            "hbm_bytes": scaled_number(problems, "hbm_gib", hbm_gib, GIB),
            "nvlink_bytes_per_s": scaled_number(problems, "nvlink_gb_per_s", nvlink_gb_per_s, GB),
            "network_bytes_per_s": scaled_number(problems, "network_gb_per_s", network_gb_per_s, GB),
            "pcie_bytes_per_s": scaled_number(problems, "pcie_gb_per_s", pcie_gb_per_s, GB),
        }
        known = ("vendor", "arch", "compute_capability", "num_nvlink_gpus", "num_sms", "tdp_w", "tables", "sources")
        for key in fields:
            if key not in known:
                problems.add(key, "an unknown field", f"one of {', '.join(known)}")
        problems.raise_if_any()
        peaks = {d: rate for d, rate in rates.items() if rate > 0}
        return cls(name=name, peak_flops_per_s=peaks, **scaled, **fields)

    def _repr_html_(self) -> str:
        from mfuroof.hardware.describe import rows, title

        return html_table(title(self), ("figure", "value", "source"), rows(self), words=(0, 2))

    def __repr__(self) -> str:
        rates = " ".join(f"{d} {rate / TERA:g}" for d, rate in self.peak_flops_per_s.items())
        memory = f"{self.hbm_bytes_per_s / TB:g} TB/s, {self.hbm_bytes / GIB:.1f} GiB"
        link = f", link {self.nvlink_bytes_per_s / GB:g} GB/s" if self.nvlink_bytes_per_s else ""
        made = " ".join(t for t in (self.vendor, self.arch) if t)
        return f"Hardware({self.name!r}{f', {made}' if made else ''}; dense TFLOP/s: {rates}; {memory}{link})"
