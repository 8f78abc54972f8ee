"""Step times that the closed form asks for: a few shapes per configuration, priced in one call."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.serving.scheduler import Scheduler
from mfuroof.serving.speculative import Speculation
from mfuroof.step import StepEvaluator

__all__ = ["Levels", "Load", "PromptSteps", "Steps", "cut_prompts"]


class Load(NamedTuple):
    """Requests of each configuration, flat arrays (n,) of real numbers. [tokens]"""

    new_tokens: F64
    """Prompt tokens to compute: the prompt less its cached prefix."""
    prefix: F64
    """Prompt tokens in the prefix cache."""
    output_len: F64
    context: F64
    """Mean tokens in the cache before a decode step."""
    variation: F64
    """Standard deviation over mean of the lengths."""
    budget: F64
    """Token budget of a step."""


class PromptSteps(NamedTuple):
    """How a prompt is cut into steps, arrays (n,)."""

    room: F64
    """Prompt tokens that a step holds. [tokens]"""
    full: F64
    """Steps that a prompt fills."""
    rest: F64
    """Tokens of its last step: the whole prompt where it fits one step. [tokens]"""
    most: F64
    """Prompts that one step can end, at least 1."""

    @property
    def num_steps(self) -> F64:
        """Steps in which a prompt takes part."""
        return self.full + 1.0


def cut_prompts(load: Load, policy: Scheduler, decoding: F64) -> PromptSteps:
    """Return how prompts are cut when ``decoding`` requests ride along."""
    room = np.maximum(load.budget - (np.floor(decoding) if policy.mixes else 0.0), 1.0)
    if not policy.chunks:  # a prompt larger than the budget has a step to itself
        room = np.maximum(room, load.new_tokens)
    full = np.ceil(load.new_tokens / room) - 1.0
    rest = load.new_tokens - full * room
    most = np.where(full > 0, 1.0, room / load.new_tokens)
    return PromptSteps(room, full, rest, most)


class Levels(NamedTuple):
    """Times of steps with a whole number of decoding requests, arrays (levels, n). [s]"""

    decode: F64
    """Decoding requests alone."""
    last: F64
    """With the last (or only) piece of one prompt."""
    several: F64
    """With those of ``whole`` prompts."""
    more: F64
    """What one prompt more adds to that."""
    filled: F64
    """With a piece that fills the token budget, in the middle of the prompt."""


class Steps:
    """Step times of one evaluator."""

    def __init__(self, evaluator: StepEvaluator, policy: Scheduler, speculation: Speculation | None = None) -> None:
        self.evaluator, self.policy, self.speculation = evaluator, policy, speculation

    def levels(self, load: Load, cut: PromptSteps, whole: F64, lowest: F64, count: int) -> Levels:
        """Return times at ``count`` consecutive numbers of decoding requests from ``lowest`` (whole numbers) on."""
        decoding = lowest + np.arange(count)[:, None]
        riding = decoding if self.policy.mixes else 0.0 * decoding
        middle = load.prefix + 0.5 * np.maximum(cut.full - 1.0, 0.0) * cut.room
        after = load.prefix + cut.full * cut.room
        zero = np.zeros_like(after)
        shapes = [
            (decoding, load.context, zero, zero, zero),
            (riding, load.context, zero + 1.0, cut.rest, after),
            (riding, load.context, whole, cut.rest, after),
            (riding, load.context, whole + 1.0, cut.rest, after),
            (riding, load.context, np.minimum(cut.full, 1.0), cut.room, middle),
        ]
        times = np.stack(self._price(shapes, decoding.shape))
        layers = self.evaluator.model.num_hidden_layers
        for i, (_, _, prompts, tokens, _) in enumerate(shapes):
            times[i] += self.policy.launch_s(prompts * tokens, layers)
        if self.speculation is not None:
            times += self.speculation.extra_s(self.evaluator, decoding, load.context, times[0])
        decode, last, several, next_one, filled = times
        return Levels(decode, last, several, np.maximum(next_one - several, 0.0), filled)

    def _price(self, shapes: list[tuple[F64, F64, F64, F64, F64]], shape: tuple[int, ...]) -> list[F64]:
        columns = [np.stack([np.broadcast_to(s[i], shape) for s in shapes]) for i in range(5)]
        whole = [np.rint(c).astype(np.int64).ravel() for c in columns]
        times = self.evaluator.step_time(StepBatch.uniform(*whole))
        return list(times.reshape(len(shapes), *shape))
