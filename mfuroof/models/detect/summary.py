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
    origins = tuple(sorted(notes.origins.items()))
    if not params and (scheme.default is not None or scheme.rules):
        notes.warn(scheme.method, dict(origins), "quantises no module of this architecture")
    main = max(params, key=params.__getitem__) if params else FORMATS[dtype]
    return Quantization(
        method=scheme.method if params else "none",
        weight_bits=main.bits,
        group_size=main.group_size or None,
        weight_bytes_nominal=main.nominal_bytes,
        weight_bytes_effective=stored / sum(params.values()) if params else main.nominal_bytes,
        kv_bytes_per_element=kv_format_of(kv_dtype).bytes_per_element,
        compute_class=main.compute_class,
        weight_only=main.weight_only,
        source=source,
        kv_dtype=kv_dtype,
        origins=origins,
        warnings=tuple(notes.warnings),
    )
