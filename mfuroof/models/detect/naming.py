"""Precision from a model's name: ``w4a16``, ``FP8``, ``NVFP4``, ``AWQ``, ``Q4_K_M``, ``bnb-4bit``."""

from __future__ import annotations

import re
from collections.abc import Callable

from mfuroof.models.detect.build import integer_format
from mfuroof.models.detect.methods.others import INT8, INT8_WO
from mfuroof.models.detect.scheme import LINEAR_KINDS, Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["GGUF_BITS", "from_name"]

GGUF_BITS = {
    "q2_k": 3.35, "q3_k_s": 3.5, "q3_k_m": 3.91, "q3_k_l": 4.27, "q3_k": 3.91, "q4_0": 4.5, "q4_1": 5.0,
    "q4_k_s": 4.58, "q4_k_m": 4.84, "q4_k": 4.84, "q5_0": 5.5, "q5_1": 6.0, "q5_k_s": 5.54, "q5_k_m": 5.68,
    "q5_k": 5.68, "q6_k": 6.5625, "q8_0": 8.5, "iq4_xs": 4.25, "iq4_nl": 4.5, "iq3_xxs": 3.06, "iq2_xxs": 2.06,
}  # fmt: skip
"""Bits per weight of whole GGUF files (block formats with their scales; ``_M`` and ``_S`` are mixes). [bits]"""

_EDGE = r"(?:^|(?<=[-._/ ]))"
_END = r"(?=$|[-._/ ])"
_GGUF = re.compile(_EDGE + "(" + "|".join(sorted(GGUF_BITS, key=len, reverse=True)) + ")" + _END)
_WXAY = re.compile(_EDGE + r"w(\d{1,2})a(\d{1,2})(fp8)?" + _END)


def _wxay(match: re.Match[str], name: str) -> Format | None:
    bits, act = int(match[1]), int(match[2])
    if bits == 16:
        return None
    if bits not in range(1, 9) or act not in (4, 8, 16):
        return None
    if bits == 4 and act == 4:
        return FORMATS["w4a4_mxfp4" if "mxfp4" in name else "nvfp4"]
    floating = "fp8" in name or match[3]
    if bits == 8:
        if act == 16:
            return FORMATS["fp8_wo"] if floating else integer_format(8, -1)
        return FORMATS["fp8"] if floating else integer_format(8, -1, activations="int8")
    act_class = "" if act == 16 or bits != 4 else "fp8" if floating else "int8"
    return integer_format(bits, 128, activations=act_class)


_WORDS: tuple[tuple[str, str, Callable[[str], Format]], ...] = (
    (r"nvfp4", "nvfp4", lambda n: FORMATS["nvfp4"]),
    (r"mxfp4", "mxfp4", lambda n: FORMATS["w4a16_mxfp4"]),
    (r"mxfp8", "mxfp8", lambda n: FORMATS["mxfp8"]),
    (r"(?:fp8|f8)[-_](?:block|block[-_]scale[sd]?)", "fp8", lambda n: FORMATS["fp8_block"]),
    (r"(?:fp8|f8|float8)", "fp8", lambda n: FORMATS["fp8"]),
    (r"(?:gptq|awq|autoround|auto[-_]round)(?:[-_]?int)?(?:[-_]?[2348](?:bits?)?)?", "gptq", lambda n: _packed(n)),
    (r"(?:bnb|bitsandbytes)[-_]?8bits?", "bitsandbytes", lambda n: INT8),
    (r"(?:bnb|nf4|bitsandbytes)(?:[-_]?4bits?)?", "bitsandbytes", lambda n: FORMATS["nf4"]),
    (r"(?:int8|8bits?)", "int8", lambda n: INT8_WO),
    (r"(?:int4|4bits?)", "int4", lambda n: integer_format(4, 128)),
    (r"(?:int3|3bits?)", "int3", lambda n: integer_format(3, 128)),
    (r"(?:int2|2bits?)", "int2", lambda n: integer_format(2, 128)),
)


def _packed(name: str) -> Format:
    """GPTQ and AWQ: 4 bits in groups of 128 unless the name says another width."""
    width = re.search(r"(?:int|w|-|_)([238])(?:bits?)?" + _END, name) if re.search(r"int[238]|[238]bit", name) else None
    return integer_format(int(width[1]) if width else 4, 128, zero=True)


_COMPILED = [(re.compile(_EDGE + word + _END), method, make) for word, method, make in _WORDS]


def from_name(name: str) -> Scheme | None:
    """Return what a model's name says about its weights; None if it says nothing.

    Words count only between separators (``- . _ /``), so that ``Llama-W400A`` says nothing.
    """
    text = name.strip().lower()
    match = _GGUF.search(text)
    if match:
        bits = GGUF_BITS[match[1]]
        fmt = Format("codebook", bits, weight_only=True)
        return Scheme("gguf", fmt, kinds=LINEAR_KINDS | {"embedding", "lm_head"})
    match = _WXAY.search(text)
    if match:
        found = _wxay(match, text)
        if found is not None:
            return Scheme(match[0], found)
    for pattern, method, make in _COMPILED:
        if pattern.search(text):
            return Scheme("awq" if method == "gptq" and "awq" in text else method, make(text))
    return None
