"""A full cache in an engine that admits a request on its prompt alone: what is thrown out, and computed again.

Such an engine admits prompts as long as there is room for them and lets the outputs run it out of room. How often that
happens depends on tokens alone, not on times; the three numbers below are means over replays of such engines
(benchmarks/agreement.py): prompts and outputs of 100 to 2,000 tokens, 20 to 160 requests in flight, lengths that vary
by 12 and by 30 %.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuroof._types import F64
from mfuroof.serving.scheduler import Scheduler
from mfuroof.serving.steps import Load

__all__ = ["Evictions", "evictions"]

_RATE = 2.2
"""Evictions of a request, over ln(mean tokens it holds / tokens of its prompt); 1.9 to 2.6 in the replays."""
_AGE = 0.15
"""Share of its output that an evicted request has seen; it is one of the youngest. 0.10 to 0.18 in the replays."""
_PAUSED = 0.1
"""Evicted requests, per eviction and request in flight; 0.06 to 0.2 in the replays."""
_WRITTEN = 1.5
"""Tokens that others write before an evicted request comes back, at most, in outputs; 0.6 to 2 in the replays."""


class Evictions(NamedTuple):
    """What a request meets, arrays (n,)."""

    again: F64
    """Tokens computed again, over those of its prompt."""
    paused: F64
    """Requests with a first token that wait for room. [requests]"""


def evictions(load: Load, policy: Scheduler, running: F64, waiting: F64) -> Evictions:
    """Return what evictions cost where ``waiting`` requests wait for room beside ``running`` ones.

    Notes
    -----
    A request is thrown out N = 2.2 ln(1 + O / (2 P)) times, but where few wait, not more often than they make room
    for: 0.1 N of the running requests are evicted ones, and at most half of those that wait. It then holds
    h = P + 0.15 O tokens. Where the cache keeps what is not written over, up to w = 1.5 O tokens are by the time it
    comes back, evenly spread, so that h - w / 2 of its own are left (h^2 / (2 w) where w is more than h).
    """
    if policy.reserves_output:
        return Evictions(np.zeros_like(running), np.zeros_like(running))
    most = _RATE * np.log1p(0.5 * load.output_len / load.new_tokens)
    times = np.minimum(most, 0.5 * waiting / (_PAUSED * running))
    held = load.new_tokens + _AGE * load.output_len
    written = _WRITTEN * load.output_len
    left = np.where(written > held, 0.5 * held**2 / written, held - 0.5 * written) if policy.keeps_evicted else 0.0
    return Evictions(times * (held - left) / load.new_tokens, _PAUSED * times * running)
