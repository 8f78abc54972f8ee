"""Collectives over tokens, from measured times over message sizes."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64, freeze
from mfuroof.core.sources import Source
from mfuroof.ops.curves import MAX_TOKENS, Curve

__all__ = ["collective_curve"]


def collective_curve(elements: F64, latency_s: F64, elements_per_token: float, source: Source = Source.EXACT) -> Curve:
    """Return the time of a collective over tokens, linear in the message between measured sizes.

    Parameters
    ----------
    elements : shape (r,)
        Ascending message sizes. [elements]
    latency_s : shape (r,)
        Times measured at them. [s]
    elements_per_token
        Elements that each token adds to the message (the hidden size, for an all-reduce of activations).
    source
        Code of the measured sizes: SUBSTITUTED where another GPU or number of ranks stands in.

    Notes
    -----
    Below the smallest message its time holds; above the largest the time grows in proportion to the message.
    """
    tokens = elements / elements_per_token
    beyond = latency_s[-1] / tokens[-1]
    inside = tokens[(tokens > 1.0) & (tokens < MAX_TOKENS)]
    knots = np.concatenate([[1.0], inside, [float(MAX_TOKENS)]])
    time = np.interp(knots, tokens, latency_s) + beyond * np.maximum(knots - tokens[-1], 0.0)
    codes = np.full(knots.size, source, np.uint8)
    ends = np.isin(knots, tokens)
    codes[~ends] = np.maximum(codes[~ends], Source.INTERPOLATED)
    if tokens[-1] > MAX_TOKENS:  # the slope at the last knot is that of the message segment it lies in
        at = int(np.searchsorted(tokens, MAX_TOKENS, side="right"))
        beyond = (latency_s[at] - latency_s[at - 1]) / (tokens[at] - tokens[at - 1])
    return Curve(freeze(knots), freeze(time), float(max(beyond, 0.0)), freeze(codes, np.uint8))
