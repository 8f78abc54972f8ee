"""Rooflines of matrix products: what no kernel can beat, and what carries a measured time to another GPU or dtype."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64
from mfuroof.hardware import Hardware
from mfuroof.precision import Format

__all__ = ["GemmRoofline"]


@dataclass(frozen=True)
class GemmRoofline:
    """Peak rate and traffic of a matrix product Y[m, n] = X[m, k] W[k, n] on one GPU.

    Attributes
    ----------
    peak_flops_per_s, hbm_bytes_per_s
        Of the GPU, for the dtype the product is computed in.
    bytes_per_weight, bytes_per_activation
        Of one element of W (scales included), and of X and Y: as narrow as the product allows, a lower bound. [bytes]
    """

    peak_flops_per_s: float
    hbm_bytes_per_s: float
    bytes_per_weight: float
    bytes_per_activation: float

    @classmethod
    def of(cls, hardware: Hardware, fmt: Format) -> GemmRoofline:
        """Return the roofline of a weight format: weight-only formats keep 16-bit activations."""
        native = hardware.native(fmt.name) and not fmt.weight_only and fmt.compute_class in ("fp8", "int8", "fp4")
        activation = fmt.bytes_per_weight if native else 2.0
        return cls(hardware.peak(fmt.name), hardware.hbm_bytes_per_s, fmt.bytes_per_weight, activation)

    def time_s(self, m: F64, n: float, k: float) -> F64:
        """Return the time no kernel can beat at each m. [s]"""
        compute = 2.0 * m * n * k / self.peak_flops_per_s
        moved = self.bytes_per_weight * n * k + self.bytes_per_activation * m * (n + k)
        return np.maximum(compute, moved / self.hbm_bytes_per_s)
