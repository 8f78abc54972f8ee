"""Discrete events of one engine: continuous batching, step by step, on the step times of an evaluator.

A run of steps in which only decoding happens is priced in one call, up to the next completion, arrival or full cache.
"""

from __future__ import annotations

import heapq
from collections import deque

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.batch import StepBatch
from mfuroof.serving.scheduler import Scheduler
from mfuroof.step import StepEvaluator

__all__ = ["Engine"]

_RUN_ENTRIES = 1 << 18
"""Requests x steps priced in one call of a decode run, at most."""


class Engine:
    """One engine and its requests; `run` fills ``first`` and ``end``.

    Attributes
    ----------
    arrival, first, end
        Submission, first and last token of each request (n,); NaN for those that never fit. [s]
    """

    def __init__(
        self,
        evaluator: StepEvaluator,
        scheduler: Scheduler,
        kv_tokens: int,
        input_len: I64,
        output_len: I64,
        cached: I64,
        arrival: F64,
        clients: int,
        think_s: float,
    ) -> None:
        n = input_len.size
        self.evaluator, self.policy = evaluator, scheduler
        self.input_len, self.output_len = input_len, output_len
        self.arrival, self.first, self.end = arrival.copy(), np.full(n, np.nan), np.full(n, np.nan)
        self.steps = self.preemptions = 0
        self._think_s = think_s
        self._shared = np.minimum(cached, input_len - 1)  # tokens of the prefix cache, which holds them once for all
        self._whole = input_len + output_len - self._shared  # tokens of its own that a request may come to
        self.kv_tokens = kv_tokens - int(self._shared.max(initial=0))
        self._held = self._shared.copy()  # tokens in the cache
        self._goal = input_len.copy()  # tokens to compute before the next token comes out
        self._left = output_len.copy()  # tokens still to come out
        self._used = self._promised = self._written = 0
        self._evicted: dict[int, tuple[int, int]] = {}  # tokens held when thrown out, and tokens written by then
        self._waiting: deque[int] = deque()
        self._filling: list[int] = []
        self._decoding: list[int] = []
        self._coming: list[tuple[float, int]] = []
        self._backlog = deque(np.flatnonzero(self._whole <= self.kv_tokens).tolist())
        self._clock, self._starts = 0.0, deque([0.0], maxlen=scheduler.lag_steps)
        for _ in range(clients or len(self._backlog)):
            self._submit(0.0, scheduled=not clients)

    def run(self) -> None:
        """Serve every request."""
        while self._coming or self._waiting or self._filling or self._decoding:
            if not (self._waiting or self._filling or self._decoding):
                self._clock = max(self._clock, self._coming[0][0])
                self._starts = deque([self._clock], maxlen=self.policy.lag_steps)
            while self._coming and self._coming[0][0] <= self._starts[0]:
                self._waiting.append(heapq.heappop(self._coming)[1])
            self._make_room()
            plan = self._plan()
            if plan:
                self._prefill_step(plan)
            else:
                self._decode_run()

    def _submit(self, time: float, scheduled: bool = False) -> None:
        if self._backlog:
            r = self._backlog.popleft()
            if not scheduled:
                self.arrival[r] = time
            heapq.heappush(self._coming, (self.arrival[r] + self.policy.request_overhead_s, r))

    def _advance(self, seconds: F64) -> None:
        ends = self._clock + np.cumsum(seconds)
        self.steps += ends.size
        self._starts.extend(ends[-self._starts.maxlen :] if self._starts.maxlen else ends)
        self._clock = float(ends[-1])

    def _release(self, r: int) -> None:
        self._used -= int(self._held[r] - self._shared[r])
        self._promised -= int(self._whole[r])

    def _make_room(self) -> None:
        """Throw out the youngest requests until every decoding one can store its next token."""
        while (
            not self.policy.reserves_output
            and self._used + max(len(self._decoding), 1) > self.kv_tokens
            and len(self._decoding) + len(self._filling) > 1
        ):
            r = (self._filling or self._decoding).pop()
            self.preemptions += 1
            self._release(r)
            self._goal[r] = self.input_len[r] + self.output_len[r] - self._left[r]
            self._evicted[r] = int(self._held[r]), self._written
            self._waiting.appendleft(r)

    def _kept(self, r: int) -> int:
        """Return the tokens of a waiting request that the cache holds: others have written over the rest since."""
        if r not in self._evicted or not self.policy.keeps_evicted:
            return int(self._shared[r])
        held, written = self._evicted[r]
        return int(min(max(held - (self._written - written), self._shared[r]), self._goal[r] - 1))

    def _plan(self) -> list[tuple[int, int, int]]:
        """Return (request, tokens held, new tokens) of each prompt in the next step; prompts are admitted here."""
        policy, plan = self.policy, []
        budget = policy.max_batch_tokens - (len(self._decoding) if policy.mixes else 0)
        room = self.kv_tokens - self._used - len(self._decoding)
        for r in self._filling:
            new = int(min(self._goal[r] - self._held[r], budget, room))
            if new > 0:
                plan.append((r, int(self._held[r]), new))
                budget, room = budget - new, room - new
        while self._waiting and budget > 0 and len(self._filling) + len(self._decoding) < policy.max_num_seqs:
            r = self._waiting[0]
            held = self._kept(r)
            own, new = held - int(self._shared[r]), int(self._goal[r] - held)
            if new > budget:
                if not policy.chunks and plan:
                    break
                new = budget if policy.chunks else new
            if policy.reserves_output:
                if self._promised + self._whole[r] > self.kv_tokens:
                    break
            elif own + new > room:
                break
            self._waiting.popleft()
            self._filling.append(r)
            self._promised += int(self._whole[r])
            self._held[r] = held
            self._used += own
            plan.append((r, held, new))
            budget, room = budget - new, room - own - new
        return plan

    def _prefill_step(self, plan: list[tuple[int, int, int]]) -> None:
        decoding = self._decoding if self.policy.mixes else []
        requests, held, new = np.array(plan).T
        done = held + new >= self._goal[requests]
        batch = StepBatch.from_csr(
            decode_offsets=[0, len(decoding)],
            decode_contexts=self._held[decoding],
            prefill_offsets=[0, len(plan)],
            prefill_contexts=held,
            prefill_new_tokens=new,
            prefill_emits=done,
        )
        layers = self.evaluator.model.num_hidden_layers
        self._advance(self.evaluator.step_time(batch) + self.policy.launch_s(new.sum(), layers))
        self._decoded(decoding, 1)
        self._held[requests] += new
        self._write(int(new.sum()))
        for r in requests[done].tolist():
            self._filling.remove(r)
            if np.isnan(self.first[r]):
                self.first[r] = self._clock
            self._left[r] -= 1
            self._decoding.append(r)
        self._retire()

    def _decode_run(self) -> None:
        """Decode until something can change: a request ends, an arrival is seen, the cache is full."""
        requests = self._decoding
        b = len(requests)
        steps = int(min(self._left[requests].min(), max(_RUN_ENTRIES // b, 1)))
        if not self.policy.reserves_output:
            steps = max(min(steps, (self.kv_tokens - self._used) // b), 1)
        batch = StepBatch.from_csr(
            decode_offsets=np.arange(steps + 1) * b,
            decode_contexts=(self._held[requests] + np.arange(steps)[:, None]).ravel(),
            prefill_offsets=np.zeros(steps + 1, np.int64),
        )
        seconds = self.evaluator.step_time(batch)
        if self._coming:  # it is seen once the step `lag_steps` before the next has started after it came
            starts = np.concatenate([self._starts, self._clock + np.cumsum(seconds)])
            first = int(np.searchsorted(starts, self._coming[0][0]))
            seconds = seconds[: max(first + self.policy.lag_steps - len(self._starts), 1)]
        self._advance(seconds)
        self._decoded(requests, seconds.size)
        self._retire()

    def _decoded(self, requests: list[int], steps: int) -> None:
        self._held[requests] += steps
        self._left[requests] -= steps
        self._write(steps * len(requests))

    def _write(self, tokens: int) -> None:
        self._used += tokens
        self._written += tokens

    def _retire(self) -> None:
        for r in [r for r in self._decoding if self._left[r] == 0]:
            self._decoding.remove(r)
            self.end[r] = self._clock
            self._release(r)
            self._submit(self._clock + self._think_s)
