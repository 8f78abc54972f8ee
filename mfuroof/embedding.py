"""One step at a time for other simulators: lists of requests, or sums over them, to seconds.

`Embedded` wraps a `StepEvaluator` for event loops: a Python float back, positive and finite, the same bits for the
same batch, a few microseconds a call. Arrays of many steps are better served by `StepEvaluator.step_time`.
"""

from __future__ import annotations

import hashlib
import math
import threading

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mfuroof._boundary import MAX_COUNT, Problems, count_array
from mfuroof._types import F64, I64, U8, ArrayLike, freeze
from mfuroof._version import __version__
from mfuroof.batch import RaggedColumns, StepBatch
from mfuroof.core._jit import jit
from mfuroof.errors import MissingTableError
from mfuroof.step import StepEvaluator
from mfuroof.units import US

__all__ = ["MIN_STEP_S", "Embedded", "kernel_stamp"]

MIN_STEP_S = US
"""What an empty batch takes by default, and the least any batch takes: the tick of simulators that count in whole
microseconds, which stall at zero. [s]"""

_GROUPS = 3  # request groups that stand for the decode requests of one aggregate


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
        if not isinstance(evaluator, StepEvaluator):
            problems.add("evaluator", type(evaluator).__name__, "a StepEvaluator")
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
        parts = np.empty((len(self.components), 1))
        self.evaluator.bound.component_times(work.batch, parts)
        return dict(zip(self.components, parts[:, 0].tolist(), strict=True))

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
        context, new = count_array("context_lens", context_lens, problems), count_array("new_tokens", new_tokens, problems)
        flags = None if is_decode is None else count_array("is_decode", is_decode, problems)
        problems.raise_if_any()
        _check(context, new, flags, None)
        if not cuts.size or cuts[0] != 0 or cuts[-1] != context.size or (np.diff(cuts) < 0).any():
            problems.add("offsets", str(cuts[[0, -1]] if cuts.size else cuts), f"a rising sequence from 0 to {new.size}")
        problems.raise_if_any()
        decodes = ((new == 1) & (context > 0)) if flags is None else ((flags > 0) & (new > 0))
        before = np.concatenate([[0], np.cumsum(decodes)])
        batch = StepBatch.from_csr(
            decode_offsets=before[cuts],
            decode_contexts=context[decodes],
            prefill_offsets=cuts - before[cuts],
            prefill_contexts=context[~decodes],
            prefill_new_tokens=new[~decodes],
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
        if not all(type(x) in (int, float, bool) for x in row):
            return float(self.aggregates(*row)[0])
        sums = work.sums
        sums[:, 0] = row
        if spread_sums(sums, work.columns) != 0:
            _check_sums(sums)
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
        sums = _sums(num_decode, decode_kv_tokens, longest_context, prefill_tokens, prefill_area, num_prefill, emits)
        n = sums.shape[1]
        columns = _empty_columns(n, _GROUPS * n, 2 * n)
        if spread_sums(sums, columns) != 0:
            _check_sums(sums)
        return self._all_checked(self.evaluator.step_time(_as_batch(columns, n), threads))

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
    ) -> _Workspace:
        context, new = _whole(context_lens), _whole(new_tokens)
        flags = None if is_decode is None else _whole(is_decode)
        ends = None if emits is None else _whole(emits)
        if context is None or new is None or context.ndim != 1 or context.shape != new.shape:
            context, new, flags, ends = _reread(context_lens, new_tokens, is_decode, emits)
        n = context.size
        work = self._workspace(n)
        staged = work.staged
        staged[0, :n], staged[1, :n] = context, new
        for row, column, given in ((2, flags, is_decode), (3, ends, emits)):
            if given is None:
                continue
            if column is None or column.shape != context.shape:
                context, new, flags, ends = _reread(context_lens, new_tokens, is_decode, emits)
                column = flags if row == 2 else ends
            staged[row, :n] = column
        if split(staged, n, is_decode is not None, emits is not None, work.columns) != 0:
            _check(*_reread(context_lens, new_tokens, is_decode, emits))
        return work

    def _workspace(self, requests: int) -> _Workspace:
        work: _Workspace | None = getattr(self._local, "work", None)
        if work is None or work.capacity < requests:
            work = self._local.work = _Workspace(max(256, 2 * requests))
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


class _Workspace:
    """Buffers of one thread: staged input, the columns of one ragged step, and the batch that views them."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.staged = np.zeros((4, capacity), np.int64)
        self.sums = np.zeros((7, 1))
        self.columns = _empty_columns(1, capacity, capacity)
        self.batch = _as_batch(self.columns, 1)
        self.out = np.empty(1)


Columns = tuple[I64, I64, I64, I64, I64, I64, I64, I64]


def _empty_columns(steps: int, decode: int, prefill: int) -> Columns:
    """Return arrays for `RaggedColumns`, in its order."""
    sizes = (steps + 1, decode, decode, steps + 1, prefill, prefill, prefill, prefill)
    return tuple(np.zeros(max(size, 2), np.int64) for size in sizes)  # type: ignore[return-value]


def _as_batch(columns: Columns, steps: int) -> StepBatch:
    """Return a batch that views the columns read-only, like every other batch; offsets bound what is read."""
    return StepBatch("ragged", RaggedColumns(*(freeze(column, np.int64) for column in columns)), steps)


@jit
def split(staged: I64, n: int, flagged: bool, ended: bool, columns: Columns) -> int:
    """Sort the requests of one step into decode and prefill; return 1 for values that no batch has."""
    decode_offsets, decode_contexts, decode_counts, offsets, contexts, new_tokens, counts, emits = columns
    decoding, filling = 0, 0
    for i in range(n):
        context, new = staged[0, i], staged[1, i]
        if context < 0 or new < 0 or context > 2**40 or new > 2**40:
            return 1
        decode = staged[2, i] != 0 if flagged else (new == 1 and context > 0)
        if decode and new > 1:
            return 1
        if decode and new == 1:
            decode_contexts[decoding] = context
            decode_counts[decoding] = 1
            decoding += 1
        elif new > 0:
            contexts[filling], new_tokens[filling] = context, new
            counts[filling] = 1
            emits[filling] = (staged[3, i] != 0) if ended else 1
            filling += 1
    decode_offsets[0], decode_offsets[1] = 0, decoding
    offsets[0], offsets[1] = 0, filling
    return 0


@jit
def spread_sums(sums: F64, columns: Columns) -> int:
    """Write request groups that have the sums of each step; return 1 for sums that no batch has."""
    decode_offsets, decode_contexts, decode_counts, offsets, contexts, new_tokens, counts, emits = columns
    decode_offsets[0] = offsets[0] = 0
    d = p = 0
    for i in range(sums.shape[1]):
        for row in range(7):
            if not (sums[row, i] >= 0.0 and (sums[row, i] <= 2.0**40 or row == 4)):
                return 1
        n, kv, longest = int(sums[0, i]), int(sums[1, i]), int(sums[2, i])
        tokens, area, prompts = int(sums[3, i]), sums[4, i], int(sums[5, i])
        if n > 0:
            if kv < n or longest > kv - n or (longest > 0 and n * (longest + 1) < kv):
                return 1
            rest, alike = kv - n, n
            if longest > 0:
                decode_contexts[d], decode_counts[d] = longest, 1
                d += 1
                rest, alike = rest - longest, n - 1
            if alike > 0:
                low, more = rest // alike, rest % alike
                decode_contexts[d], decode_counts[d] = low, alike - more
                d += 1
                if more > 0:
                    decode_contexts[d], decode_counts[d] = low + 1, more
                    d += 1
        elif kv > 0 or longest > 0:
            return 1
        if tokens > 0:
            least = 0.5 * tokens * tokens
            if prompts == 0:
                prompts = 1 if area <= 0.0 else min(max(int(math.ceil(least / area - 1e-9)), 1), tokens)
            if prompts > tokens or not area < 2.0**80 or (0.0 < area < least / prompts * (1.0 - 1e-9)):
                return 1
            low, more = tokens // prompts, tokens % prompts
            context = 0
            if area > 0.0:
                context = int(max(area / tokens - 0.5 * tokens / prompts, 0.0) + 0.5)
            for size, number in ((low, prompts - more), (low + 1, more)):
                if number > 0:
                    contexts[p], new_tokens[p], counts[p] = context, size, number
                    emits[p] = sums[6, i] != 0.0
                    p += 1
        elif area > 0.0 or prompts > 0:
            return 1
        decode_offsets[i + 1], offsets[i + 1] = d, p
    return 0


def _whole(values: ArrayLike) -> np.ndarray | None:
    """Return the values as an array if they are whole numbers without further ado; None where a look is needed."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        return None
    if array.dtype.kind in "iub" and not isinstance(values, np.ma.MaskedArray):
        return array
    return array.astype(np.int64) if array.size == 0 and array.ndim == 1 else None


def _reread(context: ArrayLike, new: ArrayLike, is_decode: ArrayLike | None, emits: ArrayLike | None) -> Any:
    """Read arguments that need care (whole floats, lists of anything), with every problem reported at once."""
    problems = Problems()
    given = {"context_lens": context, "new_tokens": new, "is_decode": is_decode, "emits": emits}
    columns = []
    for name, values in given.items():
        column = None if values is None else count_array(name, _no_arrow(values), problems)
        if values is not None and np.ndim(_no_arrow(values)) != 1 and not problems:
            problems.add(name, f"{np.ndim(values)} dimensions", "one: a value for each request")
        columns.append(column)
    problems.raise_if_any()
    _check(*columns)  # type: ignore[arg-type]
    return columns


def _no_arrow(values: ArrayLike) -> ArrayLike:
    """Return Arrow arrays as numpy's, nulls as NaN; anything else as it is."""
    return values.to_numpy(zero_copy_only=False) if hasattr(values, "null_count") and hasattr(values, "to_numpy") else values


def _check(context: I64, new: I64, is_decode: I64 | None, emits: I64 | None) -> None:
    problems = Problems()
    for name, column in (("new_tokens", new), ("is_decode", is_decode), ("emits", emits)):
        if column is not None and column.size != context.size:
            problems.add(name, f"{column.size} values", f"{context.size} as in context_lens")
    problems.raise_if_any()
    if is_decode is not None and (wrong := np.flatnonzero((is_decode != 0) & (new > 1))).size:
        at, remedy = int(wrong[0]), "A request that verifies draft tokens is a prefill request."
        problems.add(f"new_tokens[{at}]", int(new[at]), "1 for a decode request", remedy)
    problems.raise_if_any()


_SUMS = (
    "num_decode",
    "decode_kv_tokens",
    "longest_context",
    "prefill_tokens",
    "prefill_area",
    "num_prefill",
    "emits",
)


def _sums(*columns: ArrayLike) -> F64:
    """Return the sums as rows of one array (7, n)."""
    problems = Problems()
    rows: list[Any] = []
    for name, values in zip(_SUMS, columns, strict=True):
        if name == "prefill_area":
            try:
                rows.append(np.asarray(values, np.float64).ravel())
            except (TypeError, ValueError):
                problems.add(name, type(values).__name__, "numbers")
        else:
            rows.append(count_array(name, values, problems))
    problems.raise_if_any()
    n = next((row.size for row in rows if row.size != 1), 1)
    for name, row in zip(_SUMS, rows, strict=True):
        if row.size not in (1, n):
            problems.add(name, f"{row.size} values", f"{n} as in the others, or one")
    problems.raise_if_any()
    return np.ascontiguousarray(np.stack([np.broadcast_to(row, (n,)) for row in rows]), np.float64)


def _check_sums(sums: F64) -> None:
    """Say what is wrong with the first step whose sums no batch has."""
    problems = Problems()
    for i in range(sums.shape[1]):
        row = dict(zip(_SUMS, sums[:, i].tolist(), strict=True))
        for name, value in row.items():
            high = 2.0**80 if name == "prefill_area" else float(MAX_COUNT)
            problems.number(f"{name}[{i}]", value, 0.0, high)
        n, kv, longest = row["num_decode"], row["decode_kv_tokens"], row["longest_context"]
        tokens, prompts = row["prefill_tokens"], row["num_prefill"]
        if not problems:
            if n == 0 and (kv or longest):
                problems.add(f"num_decode[{i}]", n, "decode requests, or no decode_kv_tokens and longest_context")
            elif n and kv < n:
                problems.add(f"decode_kv_tokens[{i}]", kv, f"at least one token for each of {n:.0f} requests")
            elif n and (longest > kv - n or 0 < n * (longest + 1) < kv):
                problems.add(f"longest_context[{i}]", longest, f"the longest of {n:.0f} that sum up to {kv:.0f}")
            if tokens == 0 and (row["prefill_area"] or prompts):
                problems.add(f"prefill_tokens[{i}]", tokens, "tokens, or no prefill_area and num_prefill")
            elif prompts > tokens:
                problems.add(f"num_prefill[{i}]", prompts, f"at most the {tokens:.0f} prefill_tokens")
            elif tokens and 0 < row["prefill_area"] < 0.5 * tokens**2 / max(prompts, 1.0):
                least = 0.5 * tokens**2 / max(prompts, 1.0)
                problems.add(f"prefill_area[{i}]", row["prefill_area"], f"at least {least:g}: prompts without a context")
        problems.raise_if_any()


def _unpriced() -> MissingTableError:
    return MissingTableError(
        "an operation of this step", (), 'Bind the evaluator with CostParams(missing="roofline") or other tables.'
    )


@cache
def kernel_stamp() -> str:
    """Return a name of this version of the compiled kernels: package version and a digest of `mfuroof.core`.

    numba's disk cache knows the date of the caller's own file only: ``@njit(cache=True)`` code of yours that calls
    our kernels goes on with the old ones after an upgrade. Close over this text, or give each stamp a cache folder
    of its own (`docs/embedding.md` shows both).
    """
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "core").glob("*.py")):
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:12]}"
