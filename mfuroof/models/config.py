"""`ModelConfig`: a model as the rest of the project sees it: distinct layers with counts, and exact sums over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any

from mfuroof._boundary import Problems
from mfuroof._html import html_table
from mfuroof.errors import ConfigError, UnknownNameError
from mfuroof.models.modules import MODULE_KINDS, Module, layer_modules, top_modules
from mfuroof.models.quantization import Quantization
from mfuroof.models.specs import LayerSpec
from mfuroof.precision import FORMATS, Format, kv_format_of

if TYPE_CHECKING:
    from mfuroof.models.kv import KvLayout

__all__ = ["ModelConfig"]


@dataclass(frozen=True, init=False, eq=True)
class ModelConfig:
    """Architecture and precision of one model.

    Parameters
    ----------
    name
        Registry id, folder name or what the caller says.
    hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, intermediate_size, vocab_size
        As in Hugging Face configs; for hybrids those of the full-attention layers. Any other Hugging Face field
        (``num_experts``, ``moe_intermediate_size``, ``kv_lora_rank`` …) may be given by keyword and shapes ``layers``.
    layers
        One `LayerSpec` per distinct layer; built from the other fields where not given.
    extra_params
        Parameters outside layers and embeddings: the final norm and the like.
    formats
        Storage format of ``embed_tokens`` and ``lm_head`` where it is not ``dtype``.
    dtype, kv_dtype, attention_dtype
        Canonical names: what unquantised matrices and the KV cache are stored in; what attention computes in (empty:
        as the engine chooses).
    weight_bytes_per_param
        One number that stands for all formats, or None. [bytes]
    intermediate_size_mlp, interleave_moe_layer_step
        As the config has them (0 where it has not); ``layers`` says what they mean.
    exact
        False where the config leaves some parameters unsaid; `total_params` is then close, not exact.

    Raises
    ------
    ConfigError
        Fields are missing, out of range or contradict each other; every one is named.

    Examples
    --------
    >>> m = ModelConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    ...                 intermediate_size=14336, vocab_size=128256)
    >>> m.total_params, m.kv_bytes_per_token
    (8030261248, 131072.0)
    """

    name: str
    hidden_size: int
    vocab_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    tie_word_embeddings: bool
    dtype: str
    kv_dtype: str
    model_type: str
    layers: tuple[LayerSpec, ...]
    extra_params: int
    formats: tuple[tuple[str, Format], ...]
    quantization: Quantization
    attention_dtype: str
    weight_bytes_per_param: float | None
    intermediate_size_mlp: int
    interleave_moe_layer_step: int
    exact: bool

    def __init__(self, *, layers: tuple[LayerSpec, ...] | None = None, **fields: Any) -> None:
        if layers is None:
            from mfuroof.models.hf import fields_of_numbers

            fields = fields_of_numbers(fields)
            layers = fields.pop("layers")
        known = {**_DEFAULTS, **fields, "layers": tuple(layers)}
        unknown = [k for k in known if k not in _NAMES]
        if unknown:
            raise UnknownNameError("field of ModelConfig", unknown[0], _NAMES)
        for key in _NAMES:
            object.__setattr__(self, key, known[key])
        self._check()

    def _check(self) -> None:
        problems = Problems()
        count = sum(s.count for s in self.layers)
        if count != self.num_hidden_layers:
            problems.add("num_hidden_layers", self.num_hidden_layers, f"{count}, the sum over layers")
        indices = sorted(i for s in self.layers for i in s.layer_indices)
        if indices != list(range(count)):
            problems.add("layers", "layer_indices that overlap or leave gaps", f"each of 0..{count - 1} once")
        own = (self.num_attention_heads, self.num_key_value_heads, self.head_dim)
        attention = [s.attention for s in self.layers if s.attention.num_attention_heads]
        shapes = {(a.num_attention_heads, a.num_key_value_heads, a.head_dim) for a in attention}
        if shapes and own not in shapes and not any(a.mla for a in attention):
            remedy = "Change layers too, or build the model anew from its fields."
            problems.add("num_attention_heads, num_key_value_heads, head_dim", own, f"one of {sorted(shapes)}", remedy)
        problems.raise_if_any(ConfigError)

    # ---------------------------------------------------------------- construction

    @staticmethod
    def from_hf(
        source: str | PathLike[str] | Mapping[str, Any],
        *,
        name: str | None = None,
        sidecar: str | PathLike[str] | Mapping[str, Any] | None = None,
        quantization_precedence: str = "config",
    ) -> ModelConfig:
        """Read a Hugging Face config: a folder or file, a dict, or the id of a built-in model.

        Parameters
        ----------
        source
            Path of ``config.json`` or of its folder, the parsed object, or a registry id such as ``Qwen/Qwen3-32B``.
        name
            Name to use (and to search for a precision such as ``w4a16``); by default the folder's or the config's.
        sidecar
            ``hf_quant_config.json`` or ``quantize_config.json`` as path or dict; found beside a path by itself.
        quantization_precedence
            ``"config"`` (vLLM, SGLang) or ``"sidecar"`` (TensorRT-LLM) where both give a format.

        Raises
        ------
        ConfigError
            The config cannot be read or represented; the key is named.
        UnknownNameError
            A string that is neither a path nor a known model; the nearest are named.
        """
        from mfuroof.models.hf import read

        return read(source, name, sidecar, quantization_precedence)

    def with_precision(self, **overrides: Any) -> ModelConfig:
        """Return this model in another precision; see `mfuroof.models.override.with_precision` for the parameters."""
        from mfuroof.models.override import with_precision

        return with_precision(self, **overrides)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON types; `from_dict` is the inverse."""
        from mfuroof.models.serialize import to_dict

        return to_dict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ModelConfig:
        """Return the model `to_dict` wrote; raise `ConfigError` if the object is something else."""
        from mfuroof.models.serialize import from_dict

        return from_dict(data)

    # ---------------------------------------------------------------- parameters

    @cached_property
    def top_modules(self) -> tuple[Module, ...]:
        """Embedding, LM head and what else is outside the layers."""
        return top_modules(self.vocab_size, self.hidden_size, self.tie_word_embeddings, self.extra_params)

    def modules(self, layer: LayerSpec) -> tuple[Module, ...]:
        """Return the matrices of one occurrence of ``layer``."""
        return layer_modules(layer, self.hidden_size)

    @cached_property
    def _inventory(self) -> tuple[tuple[int, LayerSpec | None, tuple[Module, ...]], ...]:
        return ((1, None, self.top_modules), *((s.count, s, self.modules(s)) for s in self.layers))

    @cached_property
    def total_params(self) -> int:
        """Parameters of the language model; tied embeddings once, vision and MTP layers not."""
        return sum(n * m.params for n, _, modules in self._inventory for m in modules)

    @cached_property
    def active_params(self) -> int:
        """Parameters one token uses: all but the experts it is not routed to; the embedding table counts in full."""
        return sum(n * m.active_params for n, _, modules in self._inventory for m in modules)

    def params_by_component(self) -> dict[str, int]:
        """Return the parameters of each kind in `MODULE_KINDS` that occurs; they add up to `total_params`."""
        total = dict.fromkeys(MODULE_KINDS, 0)
        for n, _, modules in self._inventory:
            for m in modules:
                total[m.kind] += n * m.params
        return {kind: params for kind, params in total.items() if params}

    # ---------------------------------------------------------------- precision

    def module_format(self, kind: str, layer: LayerSpec | None = None) -> Format:
        """Return the storage format most weights of one kind have, in ``layer`` or in the whole model.

        Raises
        ------
        UnknownNameError
            ``kind`` is not in `MODULE_KINDS`.
        """
        if kind not in MODULE_KINDS:
            raise UnknownNameError("module kind", kind, MODULE_KINDS)
        weight: dict[Format, int] = {}
        for n, spec, modules in self._inventory:
            if layer is not None and spec != layer:
                continue
            for m in modules:
                if m.kind == kind and m.matrix_params:
                    f = self.format_in(spec, m.name)
                    weight[f] = weight.get(f, 0) + n * m.matrix_params
        return max(weight, key=weight.__getitem__) if weight else FORMATS[self.dtype]

    def module_dtype(self, kind: str, layer: LayerSpec | None = None) -> str:
        """Return the name of `module_format`."""
        return self.module_format(kind, layer).name

    def format_in(self, layer: LayerSpec | None, module: str) -> Format:
        """Return the storage format of one matrix of ``layer`` (None: outside the layers) by its name."""
        for key, value in self.formats if layer is None else layer.formats:
            if key == module:
                return value
        return FORMATS[self.dtype]

    def module_bytes(self, layer: LayerSpec | None, module: Module) -> float:
        """Return the stored bytes of one module with scales and zero points. [bytes]"""
        width = self.weight_bytes_per_param or FORMATS[self.dtype].bytes_per_weight
        plain = width * module.copies * module.extra
        if not module.matrix_params:
            return plain
        fmt = self.format_in(layer, module.name)
        return plain + module.copies * fmt.matrix_bytes(module.out_features, module.in_features)

    @cached_property
    def weight_bytes(self) -> float:
        """Bytes of all weights, module by module, with scales and zero points. [bytes]"""
        return sum(n * self.module_bytes(spec, m) for n, spec, modules in self._inventory for m in modules)

    # ---------------------------------------------------------------- KV cache

    @cached_property
    def kv_layout(self) -> KvLayout:
        """What one sequence keeps in memory, by kind of layer."""
        from mfuroof.models.kv import layout

        return layout(self)

    @cached_property
    def kv_bytes_per_token(self) -> float:
        """Bytes one token adds to the cache over all layers and ranks, before any window caps it. [bytes]"""
        return self.kv_layout.bytes_per_token(kv_format_of(self.kv_dtype))

    # ---------------------------------------------------------------- shorthands over layers

    def _largest(self, attribute: str) -> int:
        return max((getattr(s.mlp, attribute) for s in self.layers), default=0)

    @property
    def num_experts(self) -> int:
        """Routed experts of a mixture layer; 0 if there is none."""
        return self._largest("num_experts")

    @property
    def num_experts_per_tok(self) -> int:
        """Routed experts one token passes; 0 if there is none."""
        return self._largest("num_experts_per_tok")

    @property
    def moe_intermediate_size(self) -> int:
        """Width of one routed expert; 0 if there is none."""
        return self._largest("moe_intermediate_size")

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return self.num_experts > 0

    def describe(self) -> list[tuple[str, str]]:
        """Return (label, value) rows for people."""
        from mfuroof.models.describe import rows

        return rows(self)

    def _repr_html_(self) -> str:
        return html_table("", ("", ""), self.describe(), words=(0, 1))

    def __repr__(self) -> str:
        from mfuroof.models.describe import one_line

        return one_line(self)


_NAMES = tuple(ModelConfig.__dataclass_fields__)
_DEFAULTS: dict[str, Any] = {
    "name": "",
    "dtype": "bf16",
    "kv_dtype": "bf16",
    "model_type": "",
    "intermediate_size": 0,
    "tie_word_embeddings": False,
    "extra_params": 0,
    "formats": (),
    "quantization": Quantization(),
    "attention_dtype": "",
    "weight_bytes_per_param": None,
    "intermediate_size_mlp": 0,
    "interleave_moe_layer_step": 0,
    "exact": True,
}
