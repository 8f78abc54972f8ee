"""Which reader reads which ``model_type``."""

from __future__ import annotations

import warnings
from collections.abc import Callable

from mfuroof.errors import MfuroofWarning
from mfuroof.models.families.foreign import refuse_foreign
from mfuroof.models.families.generic import read_generic
from mfuroof.models.families.hybrid import read_kimi_linear, read_qwen_hybrid
from mfuroof.models.families.nemotron import read_nemotron_h, read_nemotron_nas
from mfuroof.models.families.parts import Architecture
from mfuroof.models.families.sparse import read_deepseek_v4, read_minimax_m3
from mfuroof.models.families.traits import TRAITS
from mfuroof.models.families.ungated import read_bloom, read_falcon, read_gpt2
from mfuroof.models.families.windowed import read_gemma4, read_llama4, read_mimo_v2
from mfuroof.models.fields import Fields

__all__ = ["READERS", "read_architecture"]

GATED = ("silu", "swish", "swiglu")
"""Activations that come with a gate in every family that uses them."""

Reader = Callable[[Fields], Architecture]

READERS: dict[str, Reader] = {
    **dict.fromkeys(TRAITS, read_generic),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), read_qwen_hybrid),
    "kimi_linear": read_kimi_linear,
    "nemotron_h": read_nemotron_h,
    "nemotron-nas": read_nemotron_nas,
    "llama4_text": read_llama4,
    "gemma4_text": read_gemma4,
    "mimo_v2_flash": read_mimo_v2,
    **dict.fromkeys(("deepseek_v4", "deepseek_ref"), read_deepseek_v4),
    **dict.fromkeys(("minimax_m3", "minimax_m3_vl", "minimax_m3_vl_text"), read_minimax_m3),
    "bloom": read_bloom,
    "gpt2": read_gpt2,
    "falcon": read_falcon,
}
"""Reader by ``model_type`` (of the language model, where it is nested)."""


def read_architecture(f: Fields) -> Architecture:
    """Return the architecture of a config by its ``model_type``.

    A type that is not in the table is read by its keys with a warning; structural keys that nobody read make it an
    error, so that nothing exotic passes for a plain transformer.
    """
    kind = f.text("model_type")
    reader = READERS.get(kind)
    refuse_foreign(f, kind, known=reader is not None)
    if reader is None:
        _like_llama(f, kind)
        arch = read_generic(f, TRAITS[""], exact=False)
        f.finish()
        text = f"model_type {kind!r} is not known; it was read by its keys, biases and norms may be off"
        warnings.warn(text, MfuroofWarning, stacklevel=4)
        return arch
    arch = reader(f)
    f.finish()
    return arch


def _like_llama(f: Fields, kind: str) -> None:
    """Refuse what is certainly no gated decoder, although its keys may look like one."""
    act = f.text("hidden_act", "silu")
    if act not in GATED:
        f.problems.add(
            "model_type", repr(kind), f"a known kind of model, as hidden_act is {act!r} (the MLP's shape is unsaid)"
        )
    f.finish_early()
