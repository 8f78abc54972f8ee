"""Number formats: what one stored weight or cached element costs, and what rate it computes at."""

from mfuroof.precision.formats import FORMATS, Format
from mfuroof.precision.kv import KV_FORMATS, KvFormat, canonical_kv_dtype, kv_format_of
from mfuroof.precision.names import canonical_dtype, format_of

__all__ = [
    "FORMATS",
    "KV_FORMATS",
    "Format",
    "KvFormat",
    "canonical_dtype",
    "canonical_kv_dtype",
    "format_of",
    "kv_format_of",
]
