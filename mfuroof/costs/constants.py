"""Model FLOPs utilisation by phase, for GPUs whose pair nobody gave."""

from __future__ import annotations

from typing import NamedTuple

from mfuroof.hardware import Hardware

__all__ = ["MFU_PAIRS", "MfuPair", "mfu_pair"]


class MfuPair(NamedTuple):
    """Share of the peak rate that prefill and decode steps reach as a whole. [fraction]"""

    prefill: float
    decode: float


MFU_PAIRS = {
    "hopper": MfuPair(0.45, 0.30),
    "ampere": MfuPair(0.38, 0.18),
    "ada": MfuPair(0.32, 0.08),
}
"""Pairs BLIS fitted on the H100, the A100 and the L40S, by generation."""

_MEASURED_ON = {"hopper": ("h100",), "ampere": ("a100",), "ada": ("l40s",)}


def mfu_pair(hardware: Hardware) -> tuple[MfuPair, bool]:
    """Return the pair of a GPU, and whether it was fitted on that GPU.

    Any other GPU of those generations takes its generation's pair, and everything else the H100's: large tensor-core
    parts behave alike, and a sweep over GPUs should not stop at the first without a fit. Giving ``mfu_prefill`` and
    ``mfu_decode`` is the remedy; `CostParams.blis` warns.
    """
    name = hardware.name.casefold()
    for generation, names in _MEASURED_ON.items():
        if any(n in name for n in names):
            return MFU_PAIRS[generation], True
    arch = hardware.arch.casefold()
    generation = next((g for g in MFU_PAIRS if g in arch), "hopper")
    return MFU_PAIRS[generation], False
