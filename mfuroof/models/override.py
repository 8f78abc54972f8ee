"""A model in another precision than its checkpoint's."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.errors import MfuroofWarning, UnknownNameError
from mfuroof.models.config import ModelConfig
from mfuroof.models.detect.apply import Formats, replace_formats
from mfuroof.models.detect.block import Notes
from mfuroof.models.detect.scheme import LINEAR_KINDS, Scheme
from mfuroof.models.detect.summary import summarise
from mfuroof.models.modules import MODULE_KINDS, Module
from mfuroof.precision import FORMATS, Format, canonical_dtype, canonical_kv_dtype, format_of
from mfuroof.precision.activations import with_activations

__all__ = ["BYTES_PER_PARAM", "with_precision"]

BYTES_PER_PARAM = (0.375, 4.0)
"""Smallest and largest bytes per parameter that one number may stand for: 3 bits to fp32."""

SIXTEEN = 16


def with_precision(
    model: ModelConfig,
    *,
    weight_dtype: str | None = None,
    kv_dtype: str | None = None,
    act_dtype: str | None = None,
    moe_dtype: str | None = None,
    attention_dtype: str | None = None,
    weight_bytes_per_param: float | None = None,
    per_module: Mapping[str, str] | None = None,
) -> ModelConfig:
    """Return ``model`` in another precision; None (or ``"auto"``) keeps what it has.

    Parameters
    ----------
    weight_dtype
        Format of the linear layers. On a quantised checkpoint it replaces only what that checkpoint quantises; on
        another one a 16- or 32-bit dtype changes all weights, a narrower one leaves embedding, LM head and router.
    kv_dtype
        Of the KV cache.
    act_dtype
        Of the activations that meet quantised weights: ``bf16`` makes them weight-only, ``fp8`` makes W4A16 W4A8.
    moe_dtype
        Format of the routed experts, whatever the rest has.
    attention_dtype
        Of the attention cores' arithmetic; kept for the cost model, no weight changes.
    weight_bytes_per_param
        One number for every parameter instead of formats, in [0.375, 4]. [bytes]
    per_module
        Format by kind (see `MODULE_KINDS`) or module name, for example ``{"lm_head": "fp8", "o": "bf16"}``; wins over
        everything else.

    Raises
    ------
    InputError
        ``weight_bytes_per_param`` is out of range, or ``act_dtype`` cannot meet the weights.
    UnknownNameError
        A dtype, kind or module name is not known.
    """
    edit = _Edit(model)
    if (name := _given(weight_dtype)) is not None:
        edit.weights(format_of(name))
    if (name := _given(moe_dtype)) is not None:
        fmt = format_of(name)
        if not model.is_moe:
            _warn("moe_dtype", name, f"{model.name or 'the model'} has no routed experts; nothing changes")
        edit.kinds({"experts"}, fmt)
    if (name := _given(act_dtype)) is not None:
        edit.activations(canonical_dtype(name))
    if per_module:
        edit.modules({k: format_of(v) for k, v in per_module.items()})
    if weight_bytes_per_param is not None:
        edit.one_number(weight_bytes_per_param)
    if (name := _given(kv_dtype)) is not None:
        edit.fields["kv_dtype"] = canonical_kv_dtype(name)
    if (name := _given(attention_dtype)) is not None:
        edit.fields["attention_dtype"] = canonical_dtype(name)
    return edit.result()


def _given(name: str | None) -> str | None:
    return None if name is None or str(name).strip().lower() == "auto" else name


def _warn(key: str, value: object, what: str) -> None:
    warnings.warn(f"{key} = {value}: {what}", MfuroofWarning, stacklevel=5)


class _Edit:
    """A model being changed: its layers, the formats outside them, and other fields."""

    def __init__(self, model: ModelConfig) -> None:
        self.model = model
        self.layers = model.layers
        self.formats: Formats = model.formats
        self.fields: dict[str, Any] = {"dtype": model.dtype, "kv_dtype": model.kv_dtype}
        self.touched = False
        self.method = ""

    @property
    def quantised(self) -> bool:
        return bool(self.formats) or any(s.formats for s in self.layers)

    def weights(self, fmt: Format) -> None:
        self.method = fmt.name
        self.fields["weight_bytes_per_param"] = None
        if self.quantised:
            self._each(lambda m, old: fmt if old is not None else None)
        elif fmt.bits >= SIXTEEN:
            self.fields["dtype"] = fmt.name
            self.touched = True
        else:
            self.kinds(LINEAR_KINDS, fmt)

    def kinds(self, kinds: Iterable[str], fmt: Format) -> None:
        chosen = frozenset(kinds)
        self.method = self.method or fmt.name
        self._each(lambda m, old: fmt if m.kind in chosen and m.quantisable else old)

    def modules(self, formats: Mapping[str, Format]) -> None:
        names = {m.name for s in self.layers for m in self.model.modules(s)} | {m.name for m in self.model.top_modules}
        for key in formats:
            if key not in MODULE_KINDS and key not in names:
                raise UnknownNameError("module kind or name", key, (*MODULE_KINDS, *sorted(names)))
        self.method = self.method or next(iter(formats.values())).name
        self._each(lambda m, old: formats.get(m.name, formats.get(m.kind, old)))

    def activations(self, dtype: str) -> None:
        if not self.quantised:
            if dtype not in ("bf16", "fp16", "fp32"):
                _warn("act_dtype", dtype, "no weight is quantised; nothing changes")
            return
        self.method = self.method or self.model.quantization.method
        self._each(lambda m, old: None if old is None else with_activations(old, dtype))

    def one_number(self, value: float) -> None:
        problems = Problems()
        low, high = BYTES_PER_PARAM
        size = problems.number("weight_bytes_per_param", value, low, high)
        problems.raise_if_any()
        steps = ((3.0, "fp32"), (1.5, self.fields["dtype"]), (0.9, "fp8"), (0.0, "int4_wo"))
        name = next(n for least, n in steps if size >= least)
        fmt = replace(FORMATS[name].grouped(0, 0.0, 0.0), bits=8 * size)
        self.method = "weight_bytes_per_param"
        self.fields["weight_bytes_per_param"] = size
        self._each(lambda m, old: fmt)
        width = FORMATS[self.fields["dtype"]].bytes_per_weight
        if size > width:
            _warn("weight_bytes_per_param", size, f"weights are wider than the compute dtype ({width:g} bytes)")

    def _each(self, choose: Any) -> None:
        """Set every matrix's format to ``choose(module, its own format or None)``."""
        self.touched = True
        self.layers = replace_formats(self.layers, lambda s: self._chosen(self.model.modules(s), s.formats, choose))
        self.formats = self._chosen(self.model.top_modules, self.formats, choose)

    def _chosen(self, modules: Iterable[Module], given: Formats, choose: Any) -> Formats:
        by_name, plain = dict(given), FORMATS[self.fields["dtype"]]
        pairs = ((m.name, choose(m, by_name.get(m.name))) for m in modules if m.matrix_params)
        return tuple(sorted(((n, f) for n, f in pairs if f is not None and f != plain), key=lambda p: p[0]))

    def result(self) -> ModelConfig:
        model, old = self.model, self.model.quantization
        notes = Notes(list(old.warnings), dict(old.origins))
        if self.touched:
            notes.origins["weights"] = "override"
        if self.fields["kv_dtype"] != model.kv_dtype:
            notes.origins["kv"] = "override"
        source = "override" if self.touched else old.source
        summary = summarise(
            Scheme(self.method or old.method, None),
            source,
            self.layers,
            self.formats,
            model.top_modules,
            model.hidden_size,
            self.fields["dtype"],
            self.fields["kv_dtype"],
            notes,
        )
        return replace(model, layers=self.layers, formats=self.formats, quantization=summary, **self.fields)
