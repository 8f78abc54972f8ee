"""Which tensor-core lane a number format runs on, generation by generation.

A format computes natively when the device lists the rate of its lane (and has block scaling in hardware where the
format needs it). Otherwise its weights are expanded on the fly and the product runs at the 16-bit rate: that is what
weight-only kernels do (int4 everywhere; FP8 on Ampere; NVFP4 and MXFP4 on Hopper).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.precision.formats import FORMATS

__all__ = ["COMPUTE_DTYPES", "FORMAT_LANES", "Lane", "lane_of", "native_lane", "rate_of"]

COMPUTE_DTYPES = ("bf16", "fp16", "fp8", "int8", "fp4", "tf32")
"""Rates a device may list, all dense (without the 2:4 sparsity factor)."""


class Lane(NamedTuple):
    """How a format multiplies: the lane it wants, and whether that needs 1x16 or 1x32 block scales in hardware."""

    dtype: str
    block_scaled: bool = False
    nvidia_only: bool = False


FORMAT_LANES: Mapping[str, Lane] = {
    **{name: Lane(known.compute_class) for name, known in FORMATS.items()},
    **{name: Lane(name) for name in ("bf16", "fp16", "tf32", "fp8", "int8", "fp4")},
    **dict.fromkeys(("mxfp8", "mxfp6", "w4a8_mxfp4_mxfp8"), Lane("fp8", block_scaled=True)),
    **dict.fromkeys(("mxfp4", "w4a4_mxfp4"), Lane("fp4", block_scaled=True)),
    "nvfp4": Lane("fp4", block_scaled=True, nvidia_only=True),
    "w4afp8": Lane("fp8"),
    "int4": Lane("bf16"),
}
"""Lane of each format name: that of its compute class, below them the exceptions, which need block scales in hardware.

Formats with 16-bit activations ("weight-only") always run at the 16-bit rate.
"""

_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float32": "fp32",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8": "fp8",
}


def lane_of(dtype: str) -> Lane:
    """Return the lane of a format name; `UnknownNameError` for any other name."""
    name = str(dtype).casefold().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in FORMAT_LANES:
        raise UnknownNameError("dtype", dtype, (*FORMAT_LANES, *_ALIASES))
    return FORMAT_LANES[name]


def native_lane(lane: Lane, peaks: Mapping[str, float], vendor: str) -> bool:
    """Tell whether a device with these rates multiplies in that lane without expanding the weights.

    FP4 tensor cores came together with block scaling in hardware (Blackwell, CDNA4), so an ``fp4`` rate stands for
    both; the 1x16 scales of NVFP4 are NVIDIA's own.
    """
    if lane.dtype not in peaks or (lane.block_scaled and "fp4" not in peaks):
        return False
    return not (lane.nvidia_only and vendor.casefold() == "amd")


def rate_of(lane: Lane, peaks: Mapping[str, float], vendor: str, name: str) -> float:
    """Return the dense rate at which that lane's products run, at the 16-bit rate where it is not native.

    Where fp32 tensor products (tf32) have no rate of their own nothing is assumed: they would run slower than 16-bit.
    """
    if native_lane(lane, peaks, vendor):
        return peaks[lane.dtype]
    if lane.dtype == "tf32":
        remedy = "Add it with dataclasses.replace."
        raise InputError(Problem(f"{name}.peak_flops_per_s", "no tf32 rate", "one, to compute in fp32", remedy))
    return peaks["bf16"] if "bf16" in peaks else peaks["fp16"]
