"""Typed reading of a Hugging Face config: one alias table, one place that says what is wrong with a key.

Missing and ``null`` are the same. Every key that was looked at is remembered, so that a config with structural keys
nobody read is refused instead of being taken for something simpler.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.errors import ConfigError, MfuroofWarning
from mfuroof.models.text import short

__all__ = ["ALIASES", "Fields"]

MAX_SIZE = 2**31
MAX_LAYERS = 4096

ALIASES: Mapping[str, tuple[str, ...]] = {
    "hidden_size": ("n_embed", "n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "n_layers", "num_layers"),
    "num_attention_heads": ("n_head", "n_heads", "num_heads"),
    "num_key_value_heads": ("num_kv_heads", "multi_query_group_num", "n_head_kv"),
    "head_dim": ("attention_head_dim",),
    "intermediate_size": ("ffn_hidden_size", "n_inner", "ffn_dim"),
    "hidden_act": ("hidden_activation", "mlp_hidden_act", "activation_function", "activation"),
    "dtype": ("torch_dtype",),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts", "num_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "top_k_experts", "experts_per_token", "moe_top_k"),
    "moe_intermediate_size": ("expert_intermediate_size", "moe_ffn_hidden_size"),
    "n_shared_experts": ("num_shared_experts", "moe_num_shared_experts"),
    "shared_expert_intermediate_size": (
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    ),
    "first_k_dense_replace": ("moe_first_k_dense_replace", "moe_layer_start_index"),
    "sliding_window": ("sliding_window_size", "attention_chunk_size"),
    "sliding_window_pattern": ("_sliding_window_pattern",),
    "layers_block_type": ("hybrid_override_pattern",),
    "moe_latent_size": ("routed_expert_hidden_size",),
}
"""Other spellings of a field, in the order they are tried; where several are present they must agree."""

_STRUCTURAL = re.compile(
    r"expert|moe|lora_rank|mamba|ssm|^linear_|conv_kernel|conv_l_cache|^index_|indexer|block_config|hybrid|_pattern$"
    r"|layer_types|compress|recurrent|lru_|rwkv|^kda|altup|laurel|per_layer_input|cross_attention_layers|encoder_layers"
    r"|sparse_attention|linear_attn|hc_mult|kv_shared|dense_intermediate|intermediate_size_mlp|global_|swa_|attn_layer|keep_window"
    r"|attn_type|attention_type|attention_layers|layer_type|block_type|attn_c(on)?f(i)?g|ffn_config|d_state|d_conv|^state_size"
    r"|linear_attention|short_conv|retention|retnet|lstm|delta_net|deltanet|attention_free|^(use_)?cla(_|$)|expand_[kv]$"
    r"|attention_hidden_size|full_attn_alpha|linear_attn_alpha",
    re.IGNORECASE,
)
_HARMLESS = re.compile(
    r"dtype|quant|compression|aux|renorm|loss|jitter|dropout|scaling|rope|norm_|_norm$|freq$|router_(?!size)|_bias|capacity|output_router|mtp|nextn"
    r"|act$|init|overlap|chunk_size|token|vision|audio|image|video|_eps|time_step|_func$|latent_moe_use_norm|_method$|offset|interleave$"
    r"|backend|_impl|^use_mamba|share_for|use_cache|_theta|vocab_size_per_layer_input|expert_group|n_group|ep_size|proj_bias"
)


class Fields:
    """A config whose values are read with their type checked.

    Parameters
    ----------
    config
        The JSON object; ``text_config`` already merged.
    problems
        Collector; `finish` raises `ConfigError` with everything found.
    lenient
        A model given by numbers: what only makes its parameter count doubtful is warned about, not refused.
    """

    def __init__(self, config: Mapping[str, Any], problems: Problems | None = None, *, lenient: bool = False) -> None:
        self.config = config
        self.problems = Problems() if problems is None else problems
        self.seen: set[str] = set()
        self.lenient = lenient

    def raw(self, key: str) -> Any:
        """Return the value of ``key`` or of its first alias that is present; None if there is none."""
        found = None
        for name in (key, *ALIASES.get(key, ())):
            self.seen.add(name)
            value = self.config.get(name)
            if value is not None and found is None:
                found = value
        return found

    def has(self, key: str) -> bool:
        """Say whether ``key`` or one of its aliases is written, even as null or 0."""
        return any(name in self.config for name in (key, *ALIASES.get(key, ())))

    def spelling(self, key: str) -> str:
        """Return the spelling of ``key`` that this config uses."""
        return next((n for n in (key, *ALIASES.get(key, ())) if self.config.get(n) is not None), key)

    def sound(self, *keys: str) -> bool:
        """Say whether nothing is wrong with these keys so far: what follows from a wrong one is no second problem."""
        wrong = {problem.where for problem in self.problems}
        return not any(name in wrong for key in keys for name in (key, *ALIASES.get(key, ())))

    def _bad(self, key: str, value: Any, expected: str) -> None:
        self._once(self.spelling(key), short(value), expected)

    def _once(self, where: str, found: str, expected: str, remedy: str = "") -> None:
        """Record a problem, unless the same value was objected to where it was read before."""
        if not any((p.where, p.found) == (where, found) for p in self.problems):
            self.problems.add(where, found, expected, remedy)

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = MAX_SIZE) -> int:
        """Return a whole number in [low, high]; ``default`` where missing; a problem if that is None."""
        value = self.raw(key)
        if value is None:
            if default is None:
                self._once(key, "nothing", f"an integer of at least {low}", "The key is required.")
                return max(low, 1)
            return default
        whole = type(value) is int or (isinstance(value, float) and math.isfinite(value) and value == int(value))
        if not whole or not low <= value <= high:
            self._bad(key, value, f"an integer in [{low}, {high}]")
            return max(low, 1)
        return int(value)

    def optional(self, key: str, *, low: int = 0) -> int | None:
        """Return a whole number, or None where missing."""
        return None if self.raw(key) is None else self.integer(key, low=low)

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a boolean; ``default`` where missing."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, bool) and value not in (0, 1):
            self._bad(key, value, "true or false")
            return default
        return bool(value)

    def text(self, key: str, default: str = "") -> str:
        """Return a string; ``default`` where missing."""
        value = self.raw(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self._bad(key, value, "a string")
            return default
        return value

    def per_layer(self, key: str, num_layers: int, *, spare: int = 0) -> list[Any] | None:
        """Return a list with one entry a layer (up to ``spare`` more are cut off), or None where missing."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or not num_layers <= len(value) <= num_layers + spare:
            if isinstance(value, list) and value and not self.sound("num_hidden_layers"):
                return value[:num_layers]  # how many there should be is not known
            size = f"a list of {len(value)}" if isinstance(value, list) else short(value)
            self._once(self.spelling(key), size, f"a list of {num_layers}, one entry a layer")
            return None
        return value[:num_layers]

    def nested(self, key: str) -> Fields | None:
        """Return a nested object as `Fields` sharing this collector, or None where missing."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self._bad(key, value, "an object")
            return None
        return Fields(value, self.problems)

    def doubt(self, key: str, found: object, expected: str) -> None:
        """Record a problem; in a model given by numbers, which peers accept so, only warn."""
        if self.lenient:
            warnings.warn(f"{key}: found {found}, expected {expected}", MfuroofWarning, stacklevel=2)
        else:
            self.problems.add(self.spelling(key), found, expected)

    def refuse(self, key: str, why: str, allowed: tuple[Any, ...] = (None, False, 0)) -> None:
        """Record a problem if ``key`` has a value that means something this package cannot represent."""
        value = self.raw(key)
        if not (value in allowed if isinstance(value, int | str | type(None)) else value in (None, [], {})):
            self._bad(key, value, why)

    def finish_early(self) -> None:
        """Raise `ConfigError` for the problems found so far."""
        self.problems.raise_if_any(ConfigError)

    def finish(self) -> None:
        """Raise `ConfigError` for every problem, and for structural keys that nobody read."""
        self.problems.raise_if_any(ConfigError)
        for key, value in self.config.items():
            if not isinstance(key, str) or key in self.seen or value in (None, False, 0, [], {}, ""):
                continue
            if _STRUCTURAL.search(key) and not _HARMLESS.search(key):
                self._bad(key, value, "no such key for this kind of model (nothing reads it, and it shapes layers)")
        self.problems.raise_if_any(ConfigError)
