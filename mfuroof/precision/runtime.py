"""The four-field runtime precision: what an engine is told to compute and cache in, beside what the checkpoint says."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, TypeVar

from mfuroof.errors import InputError, MfuroofWarning, Problem, nearest_names
from mfuroof.precision.kv import KV_FORMATS, canonical_kv_dtype

__all__ = ["ALLOWED", "AUTO", "UNQUANTISED", "Overrides", "RuntimePrecision"]

AUTO = "auto"
UNQUANTISED = ("none", "bf16", "fp16", "fp32")
"""Methods of a model whose weights an engine may still quantise when it loads them."""

ALLOWED: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "gemm_dtype": (AUTO, "float16", "bfloat16", "float32", "fp8", "int8", "mxfp8", "mxfp4", "nvfp4"),
        "kvcache_dtype": (
            *(AUTO, "fp16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "int8", "int4"),
            *("mxfp8", "nvfp4"),
        ),
        "attention_dtype": (AUTO, "float16", "bfloat16", "fp8", "fp8_e5m2", "fp8_e4m3", "fp8_block"),
        "moe_dtype": (AUTO, "float16", "bfloat16", "fp8", "w4afp8", "mxfp4", "int8", "mxfp8", "nvfp4"),
    }
)
"""Values of each field."""

_ALIASES = {
    "bf16": "bfloat16", "torch.bfloat16": "bfloat16", "fp16": "float16", "half": "float16", "torch.float16": "float16",
    "fp32": "float32", "torch.float32": "float32", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2",
    "none": AUTO, "": AUTO,
}  # fmt: skip
_KV_ALIASES = {"float16": "fp16"}

PRESETS_ARE_IN = "Presets by name are in mfuroof.quant.PRESETS."
"""Remedy for a name in place of fields."""
E5M2_WARNING = (
    "fp8_e5m2 keeps 2 bits of mantissa where e4m3 keeps 3; vLLM takes it with FlashInfer and Triton attention but not "
    "with FlashAttention, and on no FP8 checkpoint; SGLang leaves FlashAttention 3 for Triton; TensorRT-LLM has none"
)
"""What an E5M2 cache breaks."""


class _Quantization(Protocol):
    @property
    def method(self) -> str: ...

    @property
    def compute_class(self) -> str: ...


class PrecisionTarget(Protocol):
    """What is asked of a model: `mfuroof.models.ModelConfig` has it."""

    @property
    def quantization(self) -> _Quantization: ...

    @property
    def is_moe(self) -> bool: ...

    @property
    def kv_dtype(self) -> str: ...

    @property
    def layers(self) -> Iterable[Any]: ...

    def with_precision(self, **overrides: Any) -> Any:
        """Return the model in another precision."""


_Model = TypeVar("_Model", bound=PrecisionTarget)


class Overrides(NamedTuple):
    """Keyword arguments of ``ModelConfig.with_precision``, and what became of the fields that are in none of them."""

    arguments: dict[str, str]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RuntimePrecision:
    """What matrix products, KV cache, attention and experts run in; ``"auto"`` leaves it to checkpoint and engine.

    Parameters
    ----------
    gemm_dtype
        Of the linear layers, experts included: quantised when the weights are loaded. A checkpoint that is quantised
        already keeps its own.
    kvcache_dtype
        Of the KV cache; ``fp8`` means ``fp8_e4m3``.
    attention_dtype
        Of the attention arithmetic. Engines have no flag for it: FP8 attention comes with an FP8 cache.
    moe_dtype
        Of the routed experts, in place of ``gemm_dtype``.

    Raises
    ------
    InputError
        Values that `ALLOWED` does not list; all are named.

    Examples
    --------
    >>> RuntimePrecision(gemm_dtype="BF16", kvcache_dtype="fp8").to_dict()
    {'gemm_dtype': 'bfloat16', 'kvcache_dtype': 'fp8', 'attention_dtype': 'auto', 'moe_dtype': 'auto'}
    """

    gemm_dtype: str = AUTO
    kvcache_dtype: str = AUTO
    attention_dtype: str = AUTO
    moe_dtype: str = AUTO

    def __post_init__(self) -> None:
        problems = []
        for name in ALLOWED:
            value = _canonical(name, getattr(self, name))
            if value not in ALLOWED[name]:
                hint = nearest_names(value, ALLOWED[name], 1)
                remedy = f"Did you mean {hint[0]}?" if hint else ""
                problems.append(Problem(name, repr(getattr(self, name)), f"one of {', '.join(ALLOWED[name])}", remedy))
            object.__setattr__(self, name, value)
        if problems:
            raise InputError(problems)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> RuntimePrecision:
        """Return the record of a mapping of fields; what is left out or None is ``"auto"``.

        Raises
        ------
        InputError
            ``data`` is no mapping, has keys that are no fields, or values that are not allowed.
        """
        return cls(**checked_fields(data))

    def replace(self, **changes: str) -> RuntimePrecision:
        """Return the record with some fields changed."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, str]:
        """Return all four fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def given(self) -> dict[str, str]:
        """Return the fields that are not ``"auto"``."""
        return {name: value for name, value in self.to_dict().items() if value != AUTO}

    def summary(self) -> str:
        """Return one line for people."""
        return ", ".join(f"{name.removesuffix('_dtype')} {value}" for name, value in self.given().items()) or "all auto"

    def overrides(self, model: PrecisionTarget, cost: str = "kernels") -> Overrides:
        """Return what this means for ``model`` under a cost family, as arguments of its ``with_precision``.

        Every field is in the arguments and moves what it stands for, or the reason why not is in the warnings.
        """
        arguments: dict[str, str] = {}
        notes: list[str] = []
        method = model.quantization.method
        quantised = method not in UNQUANTISED
        if self.gemm_dtype != AUTO:
            if quantised:
                notes.append(dropped("gemm_dtype", self.gemm_dtype, f"the checkpoint is quantised already ({method})"))
            else:
                arguments["weight_dtype"] = self.gemm_dtype
        if self.moe_dtype != AUTO:
            if not model.is_moe:
                notes.append(dropped("moe_dtype", self.moe_dtype, "the model has no routed experts"))
            elif quantised:
                notes.append(dropped("moe_dtype", self.moe_dtype, f"the checkpoint is quantised already ({method})"))
            else:
                arguments["moe_dtype"] = self.moe_dtype
        if self.kvcache_dtype != AUTO:
            arguments["kv_dtype"] = self.kvcache_dtype
            if self.kvcache_dtype == "fp8_e5m2":
                notes.append(f"kvcache_dtype: {E5M2_WARNING}")
        self._attention(model, cost, arguments, notes)
        return Overrides(arguments, tuple(notes))

    def applied(self, model: _Model, cost: str = "kernels") -> _Model:
        """Return ``model`` under this precision, with an `MfuroofWarning` for each field that cannot apply."""
        arguments, notes = self.overrides(model, cost)
        for text in notes:
            warnings.warn(text, MfuroofWarning, stacklevel=2)
        return model.with_precision(**arguments) if arguments else model

    def _attention(self, model: PrecisionTarget, cost: str, arguments: dict[str, str], notes: list[str]) -> None:
        if self.attention_dtype == AUTO:
            return
        cache = KV_FORMATS[canonical_kv_dtype(arguments.get("kv_dtype", model.kv_dtype))]
        if self.attention_dtype.startswith("fp8") and cache.attention_class != "fp8":
            reason = f"FP8 attention comes with an FP8 KV cache, and this one is {cache.name}"
            notes.append(dropped("attention_dtype", self.attention_dtype, reason))
        else:
            arguments["attention_dtype"] = self.attention_dtype
            fp8 = self.attention_dtype.startswith("fp8")
            kinds = {layer.attention.kind for layer in model.layers} - {"none"}
            if fp8 and cost != "kernels":
                what = f"cost {cost} has no rate of its own for attention; what counts is the width of the cache"
                notes.append(f"attention_dtype = {self.attention_dtype}: {what}")
            elif fp8 and "gqa" not in kinds:
                what = f"{' and '.join(sorted(kinds))} attention was measured with 16-bit scores only"
                notes.append(f"attention_dtype = {self.attention_dtype}: {what}")


def dropped(field: str, value: str, reason: str) -> str:
    """Return the warning about a field that does not apply."""
    return f"{field} = {value} is dropped: {reason}"


def checked_fields(data: Mapping[str, Any], also: Iterable[str] = ()) -> dict[str, Any]:
    """Return the fields of a mapping without ``also``; raise `InputError` for other keys."""
    if not isinstance(data, Mapping):
        raise InputError(Problem("runtime precision", repr(data)[:60], "its fields", PRESETS_ARE_IN))
    known = (*ALLOWED, *also)
    unknown = [key for key in data if key not in known]
    if unknown:
        near = [nearest_names(str(key), known, 1) for key in unknown]
        raise InputError(
            Problem(str(key), "an unknown field", f"one of {', '.join(known)}", f"Did you mean {n[0]}?" if n else "")
            for key, n in zip(unknown, near, strict=True)
        )
    return {key: AUTO if value is None else value for key, value in data.items() if key in ALLOWED}


def _canonical(field: str, value: object) -> str:
    key = str(value).strip().lower().replace("-", "_") if isinstance(value, str) or value is None else repr(value)
    key = _ALIASES.get(key, key)
    return _KV_ALIASES.get(key, key) if field == "kvcache_dtype" else key
