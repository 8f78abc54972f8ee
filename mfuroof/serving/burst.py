"""The first wave of a closed loop: every client submits its first prompt at once."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64
from mfuroof.serving.scheduler import Scheduler
from mfuroof.serving.steps import Load, Steps, cut_prompts

__all__ = ["burst"]


def burst(load: Load, requests: F64, policy: Scheduler, steps: Steps) -> tuple[F64, F64]:
    """Return mean time to first token, and time until the last one, when ``requests`` prompts start together. [s]

    Notes
    -----
    Prompts are served in turn, x = prompt / budget steps each: number j ends with step ceil(j x). Where several end
    with one step the ceiling adds (1 - x) / 2 on average, otherwise half a step. Steps grow evenly from the first,
    without decoding requests, to the last, with all others decoding (not at all where prompts are served alone).
    """
    n = np.maximum(requests, 1.0)
    cut = cut_prompts(load, policy, 0.5 * n)
    together = np.minimum(cut.most, n)
    zero = np.zeros_like(n)
    ends = (zero, np.floor(np.maximum(n - together, 0.0)) if policy.mixes else zero)
    x = np.where(cut.full > 0, load.new_tokens / cut.room, 1.0 / cut.most)

    whole = np.floor(together)

    def duration(decoding: F64) -> F64:
        at = steps.levels(load, cut, whole, decoding, 1)
        base = at.decode[0] if policy.mixes else zero
        marginal = cut.full * (at.filled[0] - base) + at.last[0] - base
        several = at.several[0] + (together - whole) * at.more[0]
        return np.where(cut.full > 0, base + marginal / np.maximum(x, 1.0), several)

    first, last = duration(ends[0]), duration(ends[1])
    total = np.maximum(x * n, 1.0)
    gap = np.where(x < 1, 0.5 * (1.0 - x), 0.5 * (1.0 - 1.0 / n))
    mean = np.maximum(0.5 * x * (n + 1.0) + gap, 1.0)
    pairs = 0.5 * np.maximum(mean**2 + (x * n) ** 2 / 12.0 - mean, 0.0)
    growth = np.maximum(last - first, 0.0) / np.maximum(total - 1.0, 1.0)
    alone = steps.levels(load, cut_prompts(load, policy, zero), np.minimum(n, cut.most), zero, 1)
    single = alone.last[0] + cut.full * alone.filled[0]
    fits = (cut.full == 0) & (n <= cut.most)
    ttft = np.where(n == 1, single, np.where(fits, alone.several[0], mean * first + growth * pairs))
    end = np.where(fits, alone.several[0], total * first + growth * 0.5 * total * np.maximum(total - 1.0, 0.0))
    return ttft, np.maximum(end, ttft)
