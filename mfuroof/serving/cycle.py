"""The steady state of one engine: how a request and the others that are in flight share its steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mfuroof._types import F64
from mfuroof.serving.scheduler import Scheduler
from mfuroof.serving.steps import Levels, Load, Steps, cut_prompts

__all__ = ["Cycle", "cycle"]

_HALVINGS = 20
_CROWDED = 0.8
"""The token budget is said to bind where prompts alone would fill this share of the steps of a cycle."""


class Cycle(NamedTuple):
    """What one request meets in the steady state, arrays (n,)."""

    wait_s: F64
    """From its arrival at the engine to the start of its first step, and behind other prompts. [s]"""
    prefill_s: F64
    """Its own prompt's steps. [s]"""
    tpot_s: F64
    """Mean time of one output token after the first. [s]"""
    decode_step_s: F64
    """A step of decoding requests alone. [s]"""
    mixed_step_s: F64
    """A step with a prompt in it. [s]"""
    decoding: F64
    """Requests that decode at a time. [requests]"""
    crowded: NDArray[np.bool_]
    """Whether prompts wait for the token budget longer than for anything else."""


def cycle(load: Load, others: F64, policy: Scheduler, steps: Steps, *, overhead_s: float, closed: bool) -> Cycle:
    """Return the steady state of a request among ``others`` (real numbers of requests, at least 0).

    Notes
    -----
    A request is in flight for S = A + w steps, where A = O - 1 + lag + m: its decode steps, those it waits for and the
    m that its prompt takes. ``others`` / S of the others end per step, and their prompts arrive; that many times the
    marginal time of a prompt is what each step takes longer. w is the work that random arrivals leave over from step
    to step (Kingman's formula for a share L / S of the budget in use): w = g L / (2 (S - L)), with L the steps that
    the prompts of all others fill and g those of one prompt, times 1 + variation^2. Solved for S this is a smooth
    maximum of A and L: S = (A + L + sqrt((A - L)^2 + 2 g L)) / 2.
    """
    per_step = steps.speculation.tokens_per_step if steps.speculation is not None else 1.0
    decode_steps = (load.output_len - 1.0) / per_step
    lag = float(policy.lag_steps)
    cut = cut_prompts(load, policy, others)
    rate, behind, crowded = _rates(load, others, policy, decode_steps, lag)
    decoding = np.minimum(rate * decode_steps, others)
    cut = cut_prompts(load, policy, decoding)
    low = np.floor(decoding)
    busy = np.maximum(-np.expm1(-rate), rate / cut.most)
    if not (closed or policy.mixes):
        busy = np.maximum(_pauses(rate, busy, steps.levels(load, cut, np.ones_like(low), low, 1)), rate / cut.most)
    together = np.where(rate > 0, rate / np.maximum(busy, 1e-300), 1.0)
    whole = np.floor(together)
    at = steps.levels(load, cut, whole, low, 3)

    def between(rows: F64, level: int) -> F64:
        return rows[level] + (decoding - low) * (rows[level + 1] - rows[level])

    def step(level: int) -> tuple[F64, F64, F64]:
        """Return decode time, what a prompt adds, and mean time of a step."""
        decode, filled = between(at.decode, level), between(at.filled, level)
        mixed = between(at.several, level) + (together - whole) * between(at.more, level)
        base = decode if policy.mixes else 0.0 * decode
        prompt = (mixed - base) / together + cut.full * (filled - base)
        return decode, prompt, decode + rate * prompt

    decode, prompt, mean = step(0)
    own, _, tpot = step(1)
    # Clients in a closed loop come back when a step has ended, whatever it took. Random arrivals meet long steps more
    # often than short ones: the step that one falls into takes E[t^2] / E[t], half of which is left.
    met = np.ones_like(mean)
    if not closed:
        ends = prompt * together + (decode if policy.mixes else 0.0)
        cuts = rate * cut.full
        plain = np.maximum(1.0 - busy - cuts, 0.0) if policy.mixes else np.ones_like(mean)
        met = _mean_square([(plain, decode), (busy, ends), (cuts, between(at.filled, 0))]) / np.maximum(mean, 1e-300)
    joining = np.minimum(rate * met + 1.0, cut.most)
    shared = between(at.several, 0) + (joining - whole) * between(at.more, 0)
    last = np.where(joining > 1.0, np.maximum(shared, between(at.last, 0)), between(at.last, 0))
    filling = np.where(cut.full > 0, np.minimum((cut.room - cut.rest) / load.new_tokens, rate * cut.full), 0.0)
    prefill = last + cut.full * between(at.filled, 0) + filling * prompt
    present = np.minimum(others, 1.0)
    if closed:
        passing = mean
        if policy.mixes:  # what is met while waiting is not met again while decoding
            aligned = np.where(load.variation > 0, 0.0, np.minimum(others / policy.lag_steps, 1.0))
            with_prompt = np.where(cut.full > 0, between(at.filled, 0), between(at.last, 0))
            more = np.minimum(aligned * np.maximum(with_prompt - mean, 0.0), (tpot - own) * decode_steps / lag)
            passing, tpot = mean + more, tpot - lag * more / np.maximum(decode_steps, 1e-300)
        wait = np.maximum(present * lag * passing, overhead_s + present * (lag - 0.5) * passing)
    else:
        each = 1.0 if policy.mixes else 1.0 / (1.0 + busy + cuts)  # steps of prompts alone stand between the others
        wait = overhead_s + present * ((lag - 1.0) * each + 0.5 * met) * mean
    wait = wait + behind * (decode + cut.room / load.new_tokens * prompt)
    return Cycle(wait, prefill, tpot / per_step, own, between(at.last, 1), decoding + 1.0, crowded)


def _pauses(rate: F64, least: F64, at: Levels) -> F64:
    """Return steps of prompts alone per decode step, where prompts come first and ``rate`` arrive per decode step.

    A step of t seconds is followed by one of prompts if something arrives in it, with 1 - exp(-a t) at a arrivals per
    second. So those of p seconds come in rows of exp(a p), a row behind 1 - exp(-a d) of the decode steps of d seconds:
    n = (1 - exp(-a d)) exp(a p), where a = rate / (d + n p) and p grows with rate / n prompts that share a step.
    """
    decode, more = at.decode[0], at.more[0]
    alone = np.maximum(at.several[0] - more, 0.0)
    low, high = np.minimum(least, rate), np.maximum(rate, least)
    for _ in range(_HALVINGS):
        n = 0.5 * (low + high)
        arrivals = rate / np.maximum(decode + n * alone + rate * more, 1e-300)
        step = alone + more * rate / np.maximum(n, 1e-300)
        short = -np.expm1(-arrivals * decode) * np.exp(np.minimum(arrivals * step, 50.0)) > n
        low, high = np.where(short, n, low), np.where(short, high, n)
    return 0.5 * (low + high)


def _mean_square(steps: list[tuple[F64, F64]]) -> F64:
    """Return E[t^2] / E[t] of kinds of steps given by (share, time). [s]"""
    squares = sum((share * time**2 for share, time in steps), start=np.zeros(1))
    return squares / np.maximum(sum((share * time for share, time in steps), start=np.zeros(1)), 1e-300)


def _rates(
    load: Load, others: F64, policy: Scheduler, decode_steps: F64, lag: float
) -> tuple[F64, F64, NDArray[np.bool_]]:
    """Return prompts of others per step, steps behind other prompts, and whether those bind."""
    cut = cut_prompts(load, policy, others)
    alone = decode_steps + lag + cut.num_steps
    if not policy.mixes:
        return others / (alone - cut.num_steps), np.zeros_like(others), np.zeros(others.shape, bool)
    steps = np.maximum(alone, (others + 1.0) * (load.new_tokens + decode_steps) / load.budget)
    for _ in range(5):
        cut = cut_prompts(load, policy, others * decode_steps / steps)
        alone = decode_steps + lag + cut.num_steps
        filled = others * load.new_tokens / cut.room
        spread = load.new_tokens / cut.room * (1.0 + load.variation**2)
        steps = 0.5 * (alone + filled + np.sqrt((alone - filled) ** 2 + 2.0 * spread * filled))
    return others / steps, steps - alone, filled > _CROWDED * alone
