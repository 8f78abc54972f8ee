"""Number formats: what a stored weight or cached element costs, the rate it computes at, and what a launch asks for."""

from mfuroof.precision.formats import FORMATS, Format
from mfuroof.precision.kv import KV_FORMATS, KvFormat, canonical_kv_dtype, kv_format_of
from mfuroof.precision.names import canonical_dtype, format_of
from mfuroof.precision.presets import PRESETS, QuantConfig, expand, runtime_of
from mfuroof.precision.runtime import RuntimePrecision

__all__ = [
    "FORMATS",
    "KV_FORMATS",
    "PRESETS",
    "Format",
    "KvFormat",
    "QuantConfig",
    "RuntimePrecision",
    "canonical_dtype",
    "canonical_kv_dtype",
    "expand",
    "format_of",
    "kv_format_of",
    "runtime_of",
]
