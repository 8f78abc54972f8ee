"""What one GPU has to do for a step, as coefficients of a few counts; no rates, no efficiencies.

A *token* here is a new token, a *context token* one that is cached already, a *pair* a query and a key it sees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64

__all__ = ["NO_WORK", "Experts", "Reach", "Work", "Workload", "merged"]


@dataclass(frozen=True)
class Work:
    """Floating-point operations, and the time they take at the peak rate of their own dtypes. [FLOP, s]"""

    flops: float = 0.0
    peak_s: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.peak_s + other.peak_s)

    def __mul__(self, factor: float) -> Work:
        return Work(self.flops * factor, self.peak_s * factor)


NO_WORK = Work()


@dataclass(frozen=True)
class Reach:
    """Attention layers by how far back they see.

    Parameters
    ----------
    window
        Most keys a query sees, its own included; None for all. [tokens]
    prefill_pair, decode_pair
        Work per pair.
    prefill_context
        Work per context token of a prefill request (expanding cached latents).
    read_bytes
        Cache read per context token. [bytes]
    """

    window: int | None
    prefill_pair: Work = NO_WORK
    decode_pair: Work = NO_WORK
    prefill_context: Work = NO_WORK
    read_bytes: float = 0.0

    def __add__(self, other: Reach) -> Reach:
        return Reach(
            self.window,
            self.prefill_pair + other.prefill_pair,
            self.decode_pair + other.decode_pair,
            self.prefill_context + other.prefill_context,
            self.read_bytes + other.read_bytes,
        )


@dataclass(frozen=True)
class Experts:
    """Layers whose routed experts are alike.

    ``bytes_per_expert`` is what one more distinct expert, in each of these layers, makes a GPU read; ``tokens`` says
    how many tokens are routed per token of the step (attention data parallelism gathers them). [bytes]
    """

    num_experts: int
    experts_per_token: int
    bytes_per_expert: float
    tokens: int = 1

    def distinct(self, tokens: F64) -> F64:
        """Return the expected number of distinct experts of ``tokens`` tokens that choose independently."""
        n, k = self.num_experts, min(self.experts_per_token, self.num_experts)
        return n * (1.0 - ((n - k) / n) ** (np.asarray(tokens, dtype=np.float64) * self.tokens))

    @property
    def saturation(self) -> int:
        """Tokens from which every expert is expected to be read, to the last bit."""
        n, k = self.num_experts, min(self.experts_per_token, self.num_experts)
        return 1 if k == n else int(np.ceil(-40.0 / np.log1p(-k / n) / self.tokens)) + 1


@dataclass(frozen=True)
class Workload:
    """One GPU's work and traffic per count.

    Parameters
    ----------
    token, emission
        Matrix products per token, and of the LM head per request that emits.
    reaches
        Attention, one entry per distinct window.
    dense_bytes, head_bytes
        Weights read in every step, and by the LM head. [bytes]
    experts
        Routed experts.
    kv_write_bytes, activation_bytes
        Per token. [bytes]
    state_bytes
        Recurrent states read and written per request. [bytes]
    """

    token: Work
    reaches: tuple[Reach, ...]
    dense_bytes: float
    kv_write_bytes: float
    activation_bytes: float
    experts: tuple[Experts, ...] = ()
    emission: Work = NO_WORK
    head_bytes: float = 0.0
    state_bytes: float = 0.0

    def weight_bytes(self) -> F64:
        """Return bytes of weights read by a step of 0, 1, 2 … tokens; the last entry holds for all above. [bytes]"""
        last = max((e.saturation for e in self.experts), default=0)
        tokens = np.arange(last + 1, dtype=np.float64)
        total = np.full(tokens.size, self.dense_bytes)
        for e in self.experts:
            total += e.bytes_per_expert * e.distinct(tokens)
        return total


def merged(reaches: list[Reach]) -> tuple[Reach, ...]:
    """Join attention of the same window; full attention first."""
    by_window: dict[int | None, Reach] = {}
    for reach in reaches:
        by_window[reach.window] = by_window[reach.window] + reach if reach.window in by_window else reach
    return tuple(by_window[w] for w in sorted(by_window, key=lambda w: -1 if w is None else w))
