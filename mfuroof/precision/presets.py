"""Named runtime precisions, and how one request expands into several of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from mfuroof.errors import InputError, Problem, UnknownNameError
from mfuroof.precision.kv import canonical_kv_dtype
from mfuroof.precision.runtime import ALLOWED, AUTO, RuntimePrecision, checked_fields

__all__ = ["PRESETS", "QuantConfig", "Request", "expand", "runtime_of", "summary"]

PRESETS: Mapping[str, RuntimePrecision] = MappingProxyType(
    {
        "default": RuntimePrecision(),
        "kv-cache-fp8": RuntimePrecision(kvcache_dtype="fp8_e4m3"),
        "dynamic-fp8": RuntimePrecision("fp8", "fp8_e4m3", "fp8", "fp8"),
        "bf16-stable": RuntimePrecision(gemm_dtype="bfloat16", kvcache_dtype="fp8_e4m3"),
        "aggressive-moe": RuntimePrecision("bfloat16", "fp8_e4m3", "fp8", "w4afp8"),
    }
)
"""Presets by name. FP8 caches are E4M3: E5M2 breaks FlashAttention and FP8 checkpoints, and has to be asked for."""


@dataclass(frozen=True, slots=True)
class QuantConfig:
    """One runtime precision with the name it came by.

    Attributes
    ----------
    name
        Of the preset, and the fields that override it; without a preset, of the fields alone.
    precision
        The four fields.
    """

    name: str
    precision: RuntimePrecision

    def summary(self) -> str:
        """Return name and fields in one line."""
        return f"{self.name}: {self.precision.summary()}"


Request = str | Mapping[str, Any] | RuntimePrecision | QuantConfig | Iterable[Any] | None
"""What stands for one or more configurations."""


def expand(request: Request = None, presets: Mapping[str, Any] | None = None) -> tuple[QuantConfig, ...]:
    """Return the configurations a request stands for.

    Parameters
    ----------
    request
        The name of a preset; a mapping of fields, with ``"preset"`` (whose fields they override) or ``"presets"`` (a
        list, one configuration each, all overridden); a `RuntimePrecision` or `QuantConfig`; or a list of these. None
        is the default.
    presets
        Your own beside `PRESETS` (and before them), by name: mappings of fields or `RuntimePrecision`.

    Returns
    -------
    tuple of QuantConfig
        In the order of the request, as many as it lists.

    Raises
    ------
    UnknownNameError
        No such preset.
    InputError
        Unknown fields, values that are not allowed, both ``preset`` and ``presets``, or an empty list.

    Examples
    --------
    >>> [c.summary() for c in expand({"presets": ["default", "kv-cache-fp8"], "gemm_dtype": "fp8"})]
    ['default+gemm fp8: gemm fp8', 'kv-cache-fp8+gemm fp8: gemm fp8, kvcache fp8_e4m3']
    """
    known = {**PRESETS, **{str(name): _record(value) for name, value in (presets or {}).items()}}
    if request is None:
        return (QuantConfig("default", known["default"]),)
    if isinstance(request, QuantConfig):
        return (request,)
    if isinstance(request, RuntimePrecision):
        return (_custom(request),)
    if isinstance(request, str):
        return (QuantConfig(_preset_name(request, known), known[_preset_name(request, known)]),)
    if isinstance(request, Mapping):
        return _of_mapping(request, known)
    if not isinstance(request, Iterable):
        raise InputError(Problem("quantisation", type(request).__name__, "a preset, fields, or a list of them"))
    out = tuple(config for item in request for config in expand(item, presets))
    if not out:
        raise InputError(Problem("quantisation", "an empty list", "at least one configuration"))
    return out


def runtime_of(
    preset: str | None = None,
    gemm_dtype: str | None = None,
    kvcache_dtype: str | None = None,
    attention_dtype: str | None = None,
    moe_dtype: str | None = None,
    *,
    kv_dtype: str | None = None,
    presets: Mapping[str, Any] | None = None,
) -> QuantConfig | None:
    """Return what options or columns of a table ask for; None where they ask for nothing.

    Parameters
    ----------
    preset
        Name of a preset.
    gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype
        Fields; they override the preset, ``"auto"`` too. None and blanks are not given.
    kv_dtype
        What stands beside them for the KV cache in other words, if anything: it has to say the same.
    presets
        Your own, as in `expand`.

    Raises
    ------
    UnknownNameError
        No such preset.
    InputError
        Values that are not allowed, or two different KV caches.

    Examples
    --------
    >>> runtime_of("dynamic-fp8", kvcache_dtype="auto").precision.summary()
    'gemm fp8, attention fp8, moe fp8'
    >>> runtime_of() is None
    True
    """
    values = zip(ALLOWED, (gemm_dtype, kvcache_dtype, attention_dtype, moe_dtype), strict=True)
    given = {name: value for name, value in values if value is not None and value.strip()}
    if preset is not None and preset.strip():
        found = expand({"preset": preset, **given}, presets)[0]
    elif given:
        found = expand(given, presets)[0]
    else:
        return None
    cache = found.precision.kvcache_dtype
    if kv_dtype is not None and cache != AUTO and canonical_kv_dtype(kv_dtype) != canonical_kv_dtype(cache):
        remedy = "Give one of the two, or kvcache_dtype = auto."
        raise InputError(Problem("kv_dtype", kv_dtype, f"{cache}, the kvcache_dtype of {found.name}", remedy))
    return found


def summary(request: Request = None, presets: Mapping[str, Any] | None = None) -> str:
    """Return the configurations of a request in words, one line each."""
    return "\n".join(config.summary() for config in expand(request, presets))


def _of_mapping(request: Mapping[str, Any], known: Mapping[str, RuntimePrecision]) -> tuple[QuantConfig, ...]:
    given = checked_fields(request, ("preset", "presets"))
    one, several = request.get("preset"), request.get("presets")
    if one is not None and several is not None:
        raise InputError(Problem("preset, presets", "both", "one of them"))
    if several is not None and (isinstance(several, str | Mapping) or not isinstance(several, Iterable)):
        raise InputError(Problem("presets", repr(several), "a list of names"))
    if several is None and one is None:
        return (_custom(RuntimePrecision(**given)),)
    names = [one] if several is None else list(several)
    if not names:
        raise InputError(Problem("presets", "an empty list", f"names of {', '.join(known)}"))
    return tuple(_overridden(_preset_name(name, known), known, given) for name in names)


def _custom(precision: RuntimePrecision) -> QuantConfig:
    words = [f"{name.removesuffix('_dtype')} {value}" for name, value in precision.given().items()]
    return QuantConfig("+".join(words) or "default", precision)


def _overridden(name: str, known: Mapping[str, RuntimePrecision], given: Mapping[str, Any]) -> QuantConfig:
    precision = known[name].replace(**given)
    changes = [
        f"{field.removesuffix('_dtype')} {getattr(precision, field)}"
        for field in ALLOWED
        if getattr(precision, field) != getattr(known[name], field)
    ]
    return QuantConfig("+".join([name, *changes]), precision)


def _preset_name(name: Any, known: Mapping[str, RuntimePrecision]) -> str:
    key = str(name).strip()
    if key not in known:
        key = key.lower().replace("_", "-")
    if key not in known:
        raise UnknownNameError("quantisation preset", name, known)
    return key


def _record(value: Any) -> RuntimePrecision:
    return value if isinstance(value, RuntimePrecision) else RuntimePrecision.from_mapping(value)
