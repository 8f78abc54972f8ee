"""`Embedded`: a bound model inside a simulator's event loop."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from mfuroof._boundary import Problems, count_array
from mfuroof._types import F64, ArrayLike
from mfuroof.batch import StepBatch
from mfuroof.embedding.checks import check_columns, check_sums, reread, sum_rows, whole
from mfuroof.embedding.kernels import (
    GIVEN_CONTEXTS,
    GIVEN_DECODES,
    GIVEN_EMITS,
    GIVEN_NEW,
    GROUPS,
    Workspace,
    as_batch,
    empty_columns,
    split,
    spread_sums,
)
from mfuroof.errors import MissingTableError
from mfuroof.step import StepEvaluator
from mfuroof.units import US

__all__ = ["MIN_STEP_S", "Embedded"]

MIN_STEP_S = US
"""What an empty batch takes by default, and the least any batch takes: the tick of simulators that count in whole
microseconds, which stall at zero. [s]"""


class Embedded:
    """Step times of one bound model, called from inside a simulator's event loop.

    Parameters
    ----------
    evaluator
        A `StepEvaluator` of any cost family.
    min_step_s
        Least time returned, and the time of an empty batch; 0 is allowed where the host's clock may stand still. [s]

    Raises
    ------
    InputError
        ``evaluator`` is none, or ``min_step_s`` is negative or not finite.

    Notes
    -----
    Safe under threads (each has its own buffers) and after a fork; can be pickled.

    Examples
    --------
    >>> sim = Embedded(StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm"))
    >>> sim.step([2047, 100, 0], [1, 1, 512]) > sim.step([2047, 100], [1, 1]) > sim.step([], [])
    True
    """

    def __init__(self, evaluator: StepEvaluator, min_step_s: float = MIN_STEP_S) -> None:
        problems = Problems()
        found: object = evaluator
        if not isinstance(found, StepEvaluator):
            problems.add("evaluator", type(found).__name__, "a StepEvaluator")
        self.min_step_s = problems.number("min_step_s", min_step_s, 0.0)
        problems.raise_if_any()
        self.evaluator = evaluator
        self._local = threading.local()

    def __reduce__(self) -> tuple[Any, ...]:
        return Embedded, (self.evaluator, self.min_step_s)

    def __repr__(self) -> str:
        return f"Embedded({self.evaluator!r})"

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the parts of a step."""
        return self.evaluator.components

    def step(
        self,
        context_lens: ArrayLike,
        new_tokens: ArrayLike,
        is_decode: ArrayLike | None = None,
        emits: ArrayLike | None = None,
    ) -> float:
        """Return the time of one batch of requests. [s]

        Parameters
        ----------
        context_lens : shape (r,)
            Tokens each request has in the KV cache before the step; lists, arrays of any integer dtype and layout,
            Arrow arrays. [tokens]
        new_tokens : shape (r,)
            Tokens each computes in this step; a request with 0 takes no part. [tokens]
        is_decode : shape (r,) of bool, optional
            Which requests decode; such a request computes one token. Left out: those with one new token behind a
            context. Give it where a last chunk of one token occurs. Requests that verify several draft tokens are
            prefill requests.
        emits : shape (r,) of bool, optional
            Whether a prefill request ends its prompt in this step; all do when left out.

        Returns
        -------
        float
            Positive and finite, never less than ``min_step_s``, which is the time of an empty batch.

        Raises
        ------
        InputError
            Lengths that differ, more than one dimension, values that are negative, fractional or above 2**40, or a
            decode request with more than one new token.
        MissingTableError
            The evaluator was bound with ``missing="nan"`` and has no time for this step.
        """
        work = self._fill(context_lens, new_tokens, is_decode, emits)
        self.evaluator.bound.step_times(work.batch, work.out)
        return self._checked(work.out.item())

    def step_components(
        self,
        context_lens: ArrayLike,
        new_tokens: ArrayLike,
        is_decode: ArrayLike | None = None,
        emits: ArrayLike | None = None,
    ) -> dict[str, float]:
        """Return the parts of one batch by name; arguments and errors as in `step`. [s]

        They add up to `step` where the cost is additive (``kernels``, ``mfu_table`` with its defaults).
        """
        work = self._fill(context_lens, new_tokens, is_decode, emits)
        rows = np.empty((1 + len(self.components), 1))
        self.evaluator.bound.breakdown(work.batch, rows)
        return dict(zip(self.components, rows[1:, 0].tolist(), strict=True))

    def steps(
        self,
        offsets: ArrayLike,
        context_lens: ArrayLike,
        new_tokens: ArrayLike,
        is_decode: ArrayLike | None = None,
        threads: int = 1,
    ) -> F64:
        """Return the times of many batches in one call, for traces and exporters.

        Parameters
        ----------
        offsets : shape (n + 1,)
            Where each batch begins among the requests; the last entry is their number.
        context_lens, new_tokens, is_decode : shape (r,)
            As in `step`, all batches one after the other.
        threads
            Python threads.

        Returns
        -------
        ndarray of float64, shape (n,)
            The numbers `step` returns, bit for bit. [s]
        """
        problems = Problems()
        cuts = count_array("offsets", offsets, problems)
        context, new = (
            count_array("context_lens", context_lens, problems),
            count_array("new_tokens", new_tokens, problems),
        )
        flags = None if is_decode is None else count_array("is_decode", is_decode, problems, flags=True)
        problems.raise_if_any()
        check_columns(context, new, flags, None)
        if not cuts.size or cuts[0] != 0 or cuts[-1] != context.size or (np.diff(cuts) < 0).any():
            problems.add(
                "offsets", str(cuts[[0, -1]] if cuts.size else cuts), f"a rising sequence from 0 to {new.size}"
            )
        problems.raise_if_any()
        decodes = ((new == 1) & (context > 0)) if flags is None else ((flags > 0) & (new > 0))
        prefills = ~decodes & (new > 0)
        before, ahead = (np.concatenate([[0], np.cumsum(chosen)]) for chosen in (decodes, prefills))
        batch = StepBatch.from_csr(
            decode_offsets=before[cuts],
            decode_contexts=context[decodes],
            prefill_offsets=ahead[cuts],
            prefill_contexts=context[prefills],
            prefill_new_tokens=new[prefills],
        )
        return self._all_checked(self.evaluator.step_time(batch, threads))

    def aggregate(
        self,
        num_decode: int = 0,
        decode_kv_tokens: int = 0,
        longest_context: int = 0,
        prefill_tokens: int = 0,
        prefill_area: float = 0.0,
        num_prefill: int = 0,
        emits: bool = True,
    ) -> float:
        """Return the time of one batch of which only sums are known. [s]

        Parameters
        ----------
        num_decode
            Decode requests. [requests]
        decode_kv_tokens
            Sum of their KV lengths, the new token of each counted: sum of (context + 1). [tokens]
        longest_context
            Longest context among them; 0 where it is not known, which takes them to be alike. [tokens]
        prefill_tokens
            Sum of new tokens of the prefill requests. [tokens]
        prefill_area
            Sum of new * (context + new / 2). 0 where it is not known: one prompt, or ``num_prefill`` alike, without a
            context. [tokens^2]
        num_prefill
            Prefill requests; 0 where it is not known, which takes the fewest that the area allows. [requests]
        emits
            Whether the prefill requests end their prompts.

        Raises
        ------
        InputError
            Values out of range, or sums that no batch has.
        MissingTableError
            As in `step`.

        Notes
        -----
        The sums are given back by the batch that is priced: one decode request of the longest context and the others
        alike, and prompts alike in new tokens and context. `docs/embedding.md` has the distance from `step`.
        """
        row = (num_decode, decode_kv_tokens, longest_context, prefill_tokens, prefill_area, num_prefill, emits)
        work = self._workspace(4)
        sums: F64 = work.sums
        try:
            sums[:, 0] = row
        except (TypeError, ValueError):
            sums = sum_rows(*row)
        if spread_sums(sums, work.columns) != 0:
            check_sums(sums)
        self.evaluator.bound.step_times(work.batch, work.out)
        return self._checked(work.out.item())

    def aggregates(
        self,
        num_decode: ArrayLike = 0,
        decode_kv_tokens: ArrayLike = 0,
        longest_context: ArrayLike = 0,
        prefill_tokens: ArrayLike = 0,
        prefill_area: ArrayLike = 0.0,
        num_prefill: ArrayLike = 0,
        emits: ArrayLike = True,
        threads: int = 1,
    ) -> F64:
        """Return the times of many batches of which only sums are known; arguments as in `aggregate`, or arrays. [s]

        Returns
        -------
        ndarray of float64, shape (n,)
            The numbers `aggregate` returns, bit for bit. [s]
        """
        sums = sum_rows(num_decode, decode_kv_tokens, longest_context, prefill_tokens, prefill_area, num_prefill, emits)
        n = sums.shape[1]
        columns = empty_columns(GROUPS * n + 1)
        if spread_sums(sums, columns) != 0:
            check_sums(sums)
        return self._all_checked(self.evaluator.step_time(as_batch(columns, n), threads))

    def num_kv_blocks(self, block_size: int = 16, memory_utilization: float = 0.9) -> int:
        """Return the KV blocks of one replica, the form that schedulers of simulators ask for. [blocks]

        See `mfuroof.kv_capacity`, which this calls with the evaluator's model, GPU and ranks.
        """
        from mfuroof.capacity import kv_capacity

        e, p = self.evaluator, self.evaluator.parallel
        room = kv_capacity(
            e.model,
            e.hardware,
            p.tp_size,
            p.pp_size,
            ep_size=p.ep_size,
            dp_size=p.dp_size,
            block_size=block_size,
            memory_utilization=memory_utilization,
        )
        return int(room.num_kv_blocks.ravel()[0])

    def _fill(
        self, context_lens: ArrayLike, new_tokens: ArrayLike, is_decode: ArrayLike | None, emits: ArrayLike | None
    ) -> Workspace:
        context, new = whole(context_lens), whole(new_tokens)
        flags = None if is_decode is None else whole(is_decode)
        ends = None if emits is None else whole(emits)
        if (
            context is None
            or new is None
            or context.ndim != 1
            or context.size != new.size
            or new.ndim != 1
            or (is_decode is not None and (flags is None or flags.shape != context.shape))
            or (emits is not None and (ends is None or ends.shape != context.shape))
        ):
            context, new, flags, ends = reread(context_lens, new_tokens, is_decode, emits)
        n = context.size
        work = self._workspace(n)
        columns = work.columns
        columns[GIVEN_CONTEXTS, :n] = context
        columns[GIVEN_NEW, :n] = new
        if flags is not None:
            columns[GIVEN_DECODES, :n] = flags
        if ends is not None:
            columns[GIVEN_EMITS, :n] = ends
        if split(columns, n, flags is not None, ends is not None) != 0:
            check_columns(*reread(context_lens, new_tokens, is_decode, emits))
        return work

    def _workspace(self, requests: int) -> Workspace:
        work: Workspace | None = getattr(self._local, "work", None)
        if work is None or work.capacity < requests:
            work = self._local.work = Workspace(max(256, 2 * requests))
        return work

    def _checked(self, step_time_s: float) -> float:
        if self.min_step_s <= step_time_s < math.inf:
            return step_time_s
        if step_time_s < self.min_step_s:
            return self.min_step_s
        raise _unpriced()

    def _all_checked(self, step_time_s: F64) -> F64:
        if not np.isfinite(step_time_s).all():
            raise _unpriced()
        return np.maximum(step_time_s, self.min_step_s, out=step_time_s)


def _unpriced() -> MissingTableError:
    return MissingTableError(
        "an operation of this step", (), 'Bind the evaluator with CostParams(missing="roofline") or other tables.'
    )
