"""Storage formats of weights: bits, scales and zero points, and the rate their matrix products run at.

Adding a format is one entry in ``_TABLE`` (and, if a checkpoint names it, one in `mfuroof.models.detect`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

__all__ = ["FORMATS", "Format"]

PER_TENSOR = 0
PER_CHANNEL = -1


@dataclass(frozen=True, slots=True)
class Format:
    """How one weight matrix is stored and computed with.

    Parameters
    ----------
    name
        Canonical name; the measured tables use the same names.
    bits
        Bits of one stored value, without scales; may be fractional (code books, ggml blocks).
    compute_class
        What the tensor cores multiply: ``bf16`` (every 16-bit type, and all weight-only formats), ``fp8``, ``int8``,
        ``fp4``, ``tf32``. Hardware without it computes at the rate of the type it dequantises to.
    weight_only
        True if activations stay 16-bit.
    group_size
        Values per scale: 0 one scale per matrix (no overhead), -1 one per output row, else the group (or the product
        of a block's sides).
    scale_bytes
        Bytes of one scale, second-level scales included. [bytes]
    zero_bits
        Bits of one zero point; 0 if there is none. [bits]
    matrix_overhead_bytes
        Bytes every matrix carries whatever its size (code books). [bytes]
    """

    name: str
    bits: float
    compute_class: str = "bf16"
    weight_only: bool = False
    group_size: int = PER_TENSOR
    scale_bytes: float = 0.0
    zero_bits: float = 0.0
    matrix_overhead_bytes: float = 0.0

    @property
    def bytes_per_weight(self) -> float:
        """Bytes per parameter with scales and zero points; scales per output row are left out. [bytes]"""
        return self.bits / 8 + (self._overhead_bytes / self.group_size if self.group_size > 0 else 0.0)

    @property
    def nominal_bytes(self) -> float:
        """Bytes per parameter without scales. [bytes]"""
        return self.bits / 8

    @property
    def _overhead_bytes(self) -> float:
        return self.scale_bytes + self.zero_bits / 8

    def matrix_bytes(self, out_features: int, in_features: int) -> float:
        """Return the bytes of an (out_features, in_features) matrix with its scales. [bytes]"""
        size = out_features * in_features * self.bytes_per_weight + self.matrix_overhead_bytes
        return size + out_features * self._overhead_bytes if self.group_size == PER_CHANNEL else size

    def grouped(self, group_size: int, scale_bytes: float | None = None, zero_bits: float | None = None) -> Format:
        """Return the same format with another group, scale or zero point."""
        return replace(
            self,
            group_size=group_size,
            scale_bytes=self.scale_bytes if scale_bytes is None else scale_bytes,
            zero_bits=self.zero_bits if zero_bits is None else zero_bits,
        )


# name, bits, compute class, weight only, group, scale bytes, zero-point bits
_TABLE: tuple[tuple[str, float, str, bool, int, float, float], ...] = (
    ("fp32", 32, "tf32", False, 0, 0, 0),
    ("bf16", 16, "bf16", False, 0, 0, 0),
    ("fp16", 16, "bf16", False, 0, 0, 0),
    ("fp8", 8, "fp8", False, 0, 0, 0),
    ("fp8_block", 8, "fp8", False, 128 * 128, 4, 0),
    ("fp8_wo", 8, "bf16", True, 0, 0, 0),
    ("int8", 8, "int8", False, -1, 2, 0),
    ("int8_wo", 8, "bf16", True, -1, 2, 0),
    ("int4_wo", 4, "bf16", True, 128, 2, 0),
    ("int3_wo", 3, "bf16", True, 128, 2, 0),
    ("int2_wo", 2, "bf16", True, 128, 2, 0),
    ("int1_wo", 1, "bf16", True, 128, 2, 0),
    ("int5_wo", 5, "bf16", True, 128, 2, 0),
    ("int6_wo", 6, "bf16", True, 128, 2, 0),
    ("int7_wo", 7, "bf16", True, 128, 2, 0),
    ("w4a8_int8", 4, "int8", False, 128, 2, 0),
    ("w4a8_int4_fp8", 4, "fp8", False, 128, 2, 0),
    ("nvfp4", 4, "fp4", False, 16, 1, 0),
    ("w4a16_nvfp4", 4, "bf16", True, 16, 1, 0),
    ("w4a8_nvfp4_fp8", 4, "fp8", False, 16, 1, 0),
    ("w4a16_mxfp4", 4, "bf16", True, 32, 1, 0),
    ("w4a8_mxfp4_mxfp8", 4, "fp8", False, 32, 1, 0),
    ("w4a8_mxfp4_fp8", 4, "fp8", False, 32, 1, 0),
    ("w4a4_mxfp4", 4, "fp4", False, 32, 1, 0),
    ("mxfp6", 6, "fp8", False, 32, 1, 0),
    ("mxfp6_wo", 6, "bf16", True, 32, 1, 0),
    ("mxfp8", 8, "fp8", False, 32, 1, 0),
    ("mxfp8_wo", 8, "bf16", True, 32, 1, 0),
    ("nf4", 4, "bf16", True, 64, 4, 0),
    ("ternary", 2, "int8", False, 0, 0, 0),
    ("codebook", 2, "bf16", True, 0, 0, 0),
)

FORMATS = MappingProxyType({row[0]: Format(*row) for row in _TABLE})
"""Every storage format by canonical name, with its usual group."""
