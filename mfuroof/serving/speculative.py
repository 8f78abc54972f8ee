"""`Speculation`: speculative decoding, with a draft model or prediction heads of the model itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._boundary import Problems
from mfuroof._types import F64
from mfuroof.batch import StepBatch
from mfuroof.step import StepEvaluator

__all__ = ["Speculation"]


@dataclass(frozen=True)
class Speculation:
    """Each decode step verifies ``num_draft_tokens`` guessed tokens beside the one that is certain.

    Parameters
    ----------
    num_draft_tokens
        Tokens guessed per step, k. [tokens]
    acceptance
        Probability that a guess is right, given that those before it were, in [0, 1]. [fraction]
    draft
        Evaluator of the draft model on its GPUs; each guess costs one of its decode steps.
    draft_step_fraction
        Without a draft model: time of one guess as a share of the model's own decode step, for prediction heads
        (MTP, about 1 / layers) or lookups (0). [fraction]

    Raises
    ------
    InputError
        A value out of range.

    Notes
    -----
    A step yields E = (1 - a^(k+1)) / (1 - a) tokens on average for acceptance a (k + 1 at a = 1). It takes
    T_verify + k T_draft: T_verify is a step in which each request computes k + 1 tokens behind its context, all of
    which the LM head sees.

    References
    ----------
    .. [1] Leviathan, Kalman, Matias: Fast Inference from Transformers via Speculative Decoding (2023), section 3.1.
    """

    num_draft_tokens: int
    acceptance: float
    draft: StepEvaluator | None = None
    draft_step_fraction: float = 0.0

    def __post_init__(self) -> None:
        problems = Problems()
        count = problems.positive_int("num_draft_tokens", self.num_draft_tokens)
        acceptance = problems.number("acceptance", self.acceptance, 0.0, 1.0)
        share = problems.number("draft_step_fraction", self.draft_step_fraction, 0.0, 1e3)
        if self.draft is not None and share > 0:
            problems.add("draft_step_fraction", share, "0 where a draft model is given")
        problems.raise_if_any()
        object.__setattr__(self, "num_draft_tokens", count)
        object.__setattr__(self, "acceptance", acceptance)
        object.__setattr__(self, "draft_step_fraction", share)

    @property
    def tokens_per_step(self) -> float:
        """Mean tokens that a request gains in a step, in [1, k + 1]. [tokens]"""
        return float(sum(self.acceptance**i for i in range(self.num_draft_tokens + 1)))

    def extra_s(self, evaluator: StepEvaluator, decoding: F64, context: F64, plain_s: F64) -> F64:
        """Return what verifying and guessing add to a decode step of ``plain_s``, of the shape of ``decoding``. [s]"""
        batch = np.rint(decoding).astype(np.int64).ravel()
        tokens = np.rint(np.broadcast_to(context, decoding.shape)).astype(np.int64).ravel()
        m = self.num_draft_tokens + 1
        verify = evaluator.step_time(
            StepBatch.uniform(
                prefill_batch=batch, prefill_new_tokens=m, prefill_context=tokens, emits=np.zeros_like(batch)
            )
        )
        with_head, without = (
            evaluator.step_time(StepBatch.uniform(prefill_batch=batch * m, prefill_new_tokens=1, emits=emits))
            for emits in (np.ones_like(batch), np.zeros_like(batch))
        )
        verify = (verify + with_head - without).reshape(decoding.shape)
        if self.draft is None:
            guess = self.draft_step_fraction * plain_s
        else:
            shape = StepBatch.uniform(decode_batch=batch, decode_context=tokens)
            guess = self.draft.step_time(shape).reshape(decoding.shape)
        return np.maximum(verify, plain_s) + self.num_draft_tokens * guess - plain_s
