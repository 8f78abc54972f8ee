"""Columns of a sweep's result: names, types, units, meanings; and how a priced chunk becomes a record batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.sweep.cases import LABELS, Plan
from mfuroof.sweep.grid import SHAPE_AXES
from mfuroof.sweep.price import PricedChunk

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MEANINGS", "Columns"]

MEANINGS: dict[str, tuple[str, str]] = {
    "model": ("-", "model"),
    "gpu": ("-", "GPU type"),
    "engine": ("-", "serving engine whose kernels are priced"),
    "tp_size": ("GPUs", "tensor-parallel ranks"),
    "weight_dtype": ("-", "format of quantisable weights; own: the checkpoint's"),
    "kv_dtype": ("-", "format of the KV cache; own: the checkpoint's"),
    "decode_batch": ("requests", "decode requests of the step, one new token each"),
    "decode_context": ("tokens", "tokens each decode request has in the KV cache before the step"),
    "prefill_batch": ("requests", "prefill requests of the step; they count only where they have new tokens"),
    "prefill_new_tokens": ("tokens", "tokens each prefill request computes in the step"),
    "prefill_context": ("tokens", "tokens each prefill request has in the KV cache before the step"),
    "step_time_s": ("s", "time of one engine step"),
    "tokens_per_s_per_gpu": ("tokens/s", "tokens the step emits, per second and GPU"),
    "fits": ("-", "whether the requests' KV caches fit beside the weights; null where memory is not known"),
    "bound": ("-", "resource with the largest share of the step time"),
    "source": ("-", "worst origin among the step's table lookups"),
    "distance_octaves": ("octaves", "largest distance to data among the step's table lookups"),
}
"""Unit and meaning of each column that every cost has."""

_SOURCES = [s.name.lower() for s in Source]
_SOURCE_CODES = np.array([int(s) for s in Source])


class Columns:
    """The schema of one sweep, and record batches in it.

    Parameters
    ----------
    plan
        Cases, whose labels become dictionaries.
    detail
        One of `mfuroof.sweep.price.DETAILS`.
    components
        Names of the components of all cases, in order; empty unless ``detail`` asks for them.
    """

    def __init__(self, plan: Plan, detail: str, components: tuple[str, ...] = ()) -> None:
        self.detail, self.components = detail, components
        labels = [case.labels for case in plan.cases]
        self._names = {name: list(dict.fromkeys(row[name] for row in labels)) for name in LABELS}
        self._labels = labels

    def schema(self, metadata: dict[str, str] | None = None) -> pa.Schema:
        """Return the Arrow schema; every field carries its unit and meaning."""
        import pyarrow as pa

        text = pa.dictionary(pa.int16(), pa.string())
        small = pa.dictionary(pa.int8(), pa.string())
        types: dict[str, Any] = dict.fromkeys(LABELS, text) | {"tp_size": pa.int32()}
        types |= dict.fromkeys(SHAPE_AXES, pa.int64())
        types |= {"step_time_s": pa.float64(), "tokens_per_s_per_gpu": pa.float64(), "fits": pa.bool_()}
        if self.detail != "times":
            types |= {"bound": small, "source": small, "distance_octaves": pa.float32()}
        meanings = MEANINGS | {f"{c}_s": ("s", f"time of {c.replace('_', ' ')}") for c in self.components}
        types |= {f"{c}_s": pa.float64() for c in self.components}
        fields = [
            pa.field(name, kind, metadata={"unit": meanings[name][0], "meaning": meanings[name][1]})
            for name, kind in types.items()
        ]
        return pa.schema(fields, metadata=metadata)

    def batch(self, priced: PricedChunk, schema: pa.Schema) -> pa.RecordBatch:
        """Return a chunk as a record batch; columns that are contiguous already are not copied."""
        import pyarrow as pa

        n, chunk, labels = priced.chunk.rows, priced.chunk, self._labels[priced.number]
        arrays: dict[str, Any] = {}
        for name in LABELS:
            if name == "tp_size":
                arrays[name] = np.full(n, labels[name], np.int32)
            else:
                code = np.full(n, self._names[name].index(labels[name]), np.int16)
                arrays[name] = pa.DictionaryArray.from_arrays(code, self._names[name])
        for name, column in chunk.columns.items():
            arrays[name] = column if column.size == n else np.full(n, column[0])
        arrays["step_time_s"], arrays["tokens_per_s_per_gpu"] = priced.step_time_s, priced.tokens_per_s_per_gpu
        fits = priced.fits
        arrays["fits"] = pa.nulls(n, pa.bool_()) if fits is None else np.broadcast_to(fits, n)
        if priced.bound is not None and priced.source is not None and priced.distance_octaves is not None:
            source = np.searchsorted(_SOURCE_CODES, priced.source).astype(np.int8)
            arrays["bound"] = pa.DictionaryArray.from_arrays(priced.bound.astype(np.int8), list(RESOURCES))
            arrays["source"] = pa.DictionaryArray.from_arrays(source, _SOURCES)
            arrays["distance_octaves"] = priced.distance_octaves.astype(np.float32)
        if priced.components is not None:
            arrays |= dict.fromkeys((f"{c}_s" for c in self.components), pa.nulls(n, pa.float64()))
            own = (f"{c}_s" for c in priced.case.evaluator.components)
            arrays |= dict(zip(own, priced.components, strict=True))
        return pa.record_batch([pa.array(arrays[name]) for name in schema.names], schema=schema)
