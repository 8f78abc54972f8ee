"""From a scheme to formats per layer, and to the summary of what they amount to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mfuroof.models.detect.scheme import Scheme
from mfuroof.models.detect.spelling import Naming, spellings
from mfuroof.models.modules import Module, layer_modules
from mfuroof.models.specs import AttentionSpec, LayerSpec, MlpSpec
from mfuroof.precision import Format

__all__ = ["Formats", "assign", "formats_of", "regroup"]

Formats = tuple[tuple[str, Format], ...]
"""(module name, format) pairs of one layer, sorted; modules in the model's own dtype are left out."""


def formats_of(scheme: Scheme, modules: Iterable[Module], layer: int | None, naming: Naming) -> Formats:
    """Return the formats of one layer's modules (``layer`` None: those outside the layers)."""
    found = []
    for m in modules:
        if m.matrix_params:
            fmt = scheme.resolve(m, spellings(m.name, layer, naming), layer)
            if fmt is not None:
                found.append((m.name, fmt))
    return tuple(sorted(found, key=lambda pair: pair[0]))


def assign(scheme: Scheme, layers: Sequence[LayerSpec], hidden_size: int, naming: Naming) -> tuple[LayerSpec, ...]:
    """Return the layers with their formats; layers that differ only in precision become specs of their own."""
    by_index: dict[int, tuple[LayerSpec, Formats]] = {}
    for spec in layers:
        modules = layer_modules(spec, hidden_size)
        first = formats_of(scheme, modules, spec.layer_indices[0], naming)
        for i in spec.layer_indices:
            by_index[i] = (spec, formats_of(scheme, modules, i, naming) if scheme.by_layer else first)
    return regroup(by_index[i] for i in sorted(by_index))


def regroup(layers: Iterable[tuple[LayerSpec, Formats]]) -> tuple[LayerSpec, ...]:
    """Return one spec per distinct (architecture, formats) of layers given in order, one entry a layer."""
    where: dict[tuple[AttentionSpec, MlpSpec, int, Formats], list[int]] = {}
    for i, (spec, formats) in enumerate(layers):
        where.setdefault((spec.attention, spec.mlp, spec.norm_params, formats), []).append(i)
    return tuple(LayerSpec(len(at), a, m, tuple(at), n, f) for (a, m, n, f), at in where.items())


def replace_formats(layers: Sequence[LayerSpec], change: Callable[[LayerSpec], Formats]) -> tuple[LayerSpec, ...]:
    """Return the layers with formats changed spec by spec, joined where they became equal."""
    by_index = {i: (spec, formats) for spec in layers for formats in [change(spec)] for i in spec.layer_indices}
    return regroup(by_index[i] for i in sorted(by_index))
