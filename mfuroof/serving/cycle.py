"""The steady state of one engine: how a request and the others that are in flight share its steps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuroof._types import F64
from mfuroof.serving.scheduler import Scheduler
from mfuroof.serving.steps import Load, Steps, cut_prompts

__all__ = ["Cycle", "cycle"]


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
    """Other requests that decode at a time. [requests]"""
    budget_use: F64
    """Share of the token budget in use, in [0, 1]. [fraction]"""


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
    lag = float(policy.lag_steps) - (0.0 if closed else 0.5)
    cut = cut_prompts(load, policy, others)
    rate, behind, use = _rates(load, others, policy, decode_steps, lag)
    decoding = np.minimum(rate * decode_steps, others)
    cut = cut_prompts(load, policy, decoding)
    busy = np.maximum(-np.expm1(-rate), rate / cut.most)
    together = np.where(rate > 0, rate / np.maximum(busy, 1e-300), 1.0)
    whole, low = np.floor(together), np.floor(decoding)
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
    joining = np.minimum(rate + 1.0, cut.most)
    shared = between(at.several, 0) + (joining - whole) * between(at.more, 0)
    last = np.where(joining > 1.0, np.maximum(shared, between(at.last, 0)), between(at.last, 0))
    filling = np.where(cut.full > 0, np.minimum((cut.room - cut.rest) / load.new_tokens, rate * cut.full), 0.0)
    prefill = last + cut.full * between(at.filled, 0) + filling * prompt
    aligned = np.where(load.variation > 0, 0.0, np.minimum(others / policy.lag_steps, 1.0)) if policy.mixes else 0.0
    passing = mean + aligned * np.maximum(between(at.last, 0) - mean, 0.0)
    present = np.minimum(others, 1.0)
    wait = np.maximum(present * lag * passing, overhead_s + present * (lag - 0.5) * passing)
    wait = wait + behind * (decode + cut.room / load.new_tokens * prompt)
    return Cycle(wait, prefill, tpot / per_step, own, between(at.last, 1), decoding, use)


def _rates(load: Load, others: F64, policy: Scheduler, decode_steps: F64, lag: float) -> tuple[F64, F64, F64]:
    """Return prompts of others per step, steps behind other prompts, and the share of the token budget in use."""
    cut = cut_prompts(load, policy, others)
    alone = decode_steps + lag + cut.count
    if not policy.mixes:
        return others / (alone - cut.count), np.zeros_like(others), np.zeros_like(others)
    steps = np.maximum(alone, (others + 1.0) * (load.new_tokens + decode_steps) / load.budget)
    for _ in range(5):
        cut = cut_prompts(load, policy, others * decode_steps / steps)
        alone = decode_steps + lag + cut.count
        filled = others * load.new_tokens / cut.room
        spread = load.new_tokens / cut.room * (1.0 + load.variation**2)
        steps = 0.5 * (alone + filled + np.sqrt((alone - filled) ** 2 + 2.0 * spread * filled))
    return others / steps, steps - alone, np.minimum(filled / steps, 1.0)
