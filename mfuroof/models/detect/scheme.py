"""What a quantisation block means: rules that give each module a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mfuroof.models.detect.matching import MapMatcher, PatternMatcher
from mfuroof.models.modules import Module
from mfuroof.precision import Format

__all__ = ["LINEAR_KINDS", "Rule", "Scheme"]

LINEAR_KINDS = frozenset(
    ("qkv", "o", "mla", "indexer", "linear_attention", "mamba", "gate_up", "down", "experts", "shared_experts")
)
"""Kinds a method quantises unless told otherwise; embeddings, LM head and router only where they are named."""


@dataclass(frozen=True)
class Rule:
    """Modules, by name or kind, and the format they get (None: they stay in the model's dtype)."""

    fmt: Format | None
    names: PatternMatcher | None = None
    kinds: frozenset[str] | None = None

    def applies(self, module: Module, names: Sequence[str], layer: int | None) -> bool:
        """Return whether this rule decides ``module``."""
        if self.kinds is not None and module.kind not in self.kinds:
            return False
        return self.names is None or self.names.matches(names, layer)


@dataclass(frozen=True)
class Scheme:
    """The meaning of one block.

    Parameters
    ----------
    method
        Canonical name.
    default
        Format of every module in ``kinds`` that no rule decides; None if only named modules are quantised.
    rules
        Tried in order, the first that applies decides; a rule by name may reach modules outside ``kinds``.
    listed
        Formats by exact name, tried before the rules; None as value: stays as it is.
    kv_dtype
        What the block says about the KV cache; empty if nothing.
    """

    method: str
    default: Format | None
    rules: tuple[Rule, ...] = ()
    listed: MapMatcher[Format | str] | None = None
    kinds: frozenset[str] = field(default=LINEAR_KINDS)
    kv_dtype: str = ""

    @property
    def by_layer(self) -> bool:
        """Whether layers of the same architecture may differ."""
        return self.listed is not None or any(r.names is not None and r.names.by_layer for r in self.rules)

    def resolve(self, module: Module, names: Sequence[str], layer: int | None) -> Format | None:
        """Return the format of one module, None where it stays in the model's dtype."""
        if self.listed is not None:
            found = self.listed.find(names)
            if found is not None:
                return found if isinstance(found, Format) else None
        for rule in self.rules:
            if rule.applies(module, names, layer):
                return rule.fmt
        return self.default if module.quantisable and module.kind in self.kinds else None
