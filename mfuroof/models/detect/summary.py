"""One line about a checkpoint's precision, from the formats its modules ended up with."""

from __future__ import annotations

from collections.abc import Sequence

from mfuroof.models.detect.apply import Formats
from mfuroof.models.detect.block import Notes
from mfuroof.models.detect.scheme import Scheme
from mfuroof.models.modules import Module, layer_modules
from mfuroof.models.quantization import Quantization
from mfuroof.models.specs import LayerSpec
from mfuroof.precision import FORMATS, Format, kv_format_of

__all__ = ["summarise"]


def summarise(
    scheme: Scheme,
    source: str,
    layers: Sequence[LayerSpec],
    formats: Formats,
    top: Sequence[Module],
    hidden_size: int,
    dtype: str,
    kv_dtype: str,
    notes: Notes,
) -> Quantization:
    """Return the summary; bits, group and class are those of the format most quantised weights have."""
    params: dict[Format, int] = {}
    stored = 0.0
    parts = [(1, top, formats), *((s.count, layer_modules(s, hidden_size), s.formats) for s in layers)]
    for count, modules, given in parts:
        by_name = dict(given)
        for m in modules:
            fmt = by_name.get(m.name)
            if fmt is not None:
                params[fmt] = params.get(fmt, 0) + count * m.matrix_params
                stored += count * m.copies * fmt.matrix_bytes(m.out_features, m.in_features)
    kv_bytes = kv_format_of(kv_dtype).bytes_per_element
    common = {"kv_bytes_per_element": kv_bytes, "kv_dtype": kv_dtype, "source": source}
    facts = {"origins": tuple(sorted(notes.origins.items())), "warnings": tuple(notes.warnings)}
    plain = FORMATS[dtype]
    if not params:
        method = scheme.method if scheme.default is not None or scheme.rules else "none"
        if method != "none":
            notes.warn(method, sorted(notes.origins.items()), "quantises no module of this architecture")
            facts["warnings"] = tuple(notes.warnings)
        return Quantization(
            "none", plain.bits, None, plain.nominal_bytes, plain.nominal_bytes, compute_class=plain.compute_class,
            **common, **facts,
        )  # fmt: skip
    main = max(params, key=params.__getitem__)
    total = sum(params.values())
    return Quantization(
        method=scheme.method,
        weight_bits=main.bits,
        group_size=main.group_size or None,
        weight_bytes_nominal=main.nominal_bytes,
        weight_bytes_effective=stored / total,
        compute_class=main.compute_class,
        weight_only=main.weight_only,
        **common,
        **facts,
    )
