"""KV-cache formats: bytes of one cached element."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from mfuroof.errors import UnknownNameError

__all__ = ["KV_ALIASES", "KV_FORMATS", "KvFormat", "canonical_kv_dtype", "kv_format_of"]


@dataclass(frozen=True, slots=True)
class KvFormat:
    """How one element of the KV cache is stored.

    ``bytes_per_element`` includes scales. [bytes] ``mla_bytes_per_token`` is set where a format packs a whole MLA
    latent differently (quantised latent, its scales, 16-bit rotary part). [bytes per token and layer]
    """

    name: str
    bytes_per_element: float
    attention_class: str = "bf16"
    mla_bytes_per_token: int | None = None


KV_FORMATS = MappingProxyType(
    {
        f.name: f
        for f in (
            KvFormat("fp32", 4.0, "tf32"),
            KvFormat("bf16", 2.0),
            KvFormat("fp16", 2.0),
            KvFormat("fp8", 1.0, "fp8"),
            KvFormat("fp8_e5m2", 1.0, "fp8"),
            KvFormat("fp8_ds_mla", 1.0, "bf16", 656),  # 512 fp8 + 4 fp32 scales + 64 rotary elements of 2 bytes
            KvFormat("mxfp8", 1.0 + 1 / 32, "fp8"),
            KvFormat("int8", 1.0),
            KvFormat("int4", 0.5),
            KvFormat("nvfp4", 0.5 + 1 / 16, "fp8"),
            KvFormat("mxfp4", 0.5 + 1 / 32, "fp8"),
        )
    }
)
"""Every KV-cache format by canonical name."""

KV_ALIASES = {
    "bfloat16": "bf16", "torch.bfloat16": "bf16", "float16": "fp16", "half": "fp16", "torch.float16": "fp16",
    "float32": "fp32", "torch.float32": "fp32", "fp8_e4m3": "fp8", "float8_e4m3fn": "fp8", "e4m3": "fp8",
    "float8": "fp8", "fp8_inc": "fp8", "fp8_per_token_head": "fp8", "e5m2": "fp8_e5m2", "float8_e5m2": "fp8_e5m2",
    "int8_per_token_head": "int8", "int4_per_token_head": "int4", "fp4_mx_block16": "nvfp4", "fp4_e2m1": "nvfp4",
    "nvfp4_4over6": "nvfp4", "fp4": "nvfp4",
}  # fmt: skip
"""Other spellings, in lower case, of the names in `KV_FORMATS`."""


def canonical_kv_dtype(name: str) -> str:
    """Return the canonical name of a KV-cache dtype; raise `UnknownNameError` naming the nearest otherwise."""
    key = str(name).strip().lower().replace("-", "_")
    key = KV_ALIASES.get(key, key)
    if key not in KV_FORMATS:
        raise UnknownNameError("KV cache dtype", name, (*KV_FORMATS, *KV_ALIASES))
    return key


def kv_format_of(dtype: str) -> KvFormat:
    """Return the `KvFormat` of a name in any spelling."""
    return KV_FORMATS[canonical_kv_dtype(dtype)]
