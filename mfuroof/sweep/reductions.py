"""Reductions by kind, to make one again from what a manifest says of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mfuroof.errors import UnknownNameError
from mfuroof.sweep.reduce_histogram import Histogram
from mfuroof.sweep.reduce_pareto import Pareto
from mfuroof.sweep.reduce_topk import TopK
from mfuroof.sweep.reduction import Reduction

__all__ = ["reduction_from"]

_KINDS: Mapping[str, Any] = {"histogram": Histogram, "pareto": Pareto, "top": TopK}


def reduction_from(spec: Mapping[str, Any]) -> Reduction:
    """Return the reduction whose `to_dict` gave ``spec``; `UnknownNameError` for a kind that is not ours."""
    given = dict(spec)
    kind = given.pop("kind", None)
    if kind not in _KINDS:
        remedy = "Run the sweep in the merged folder without a shard."
        raise UnknownNameError("kind of reduction", kind, _KINDS, remedy)
    reduction: Reduction = _KINDS[kind](**given)
    return reduction
