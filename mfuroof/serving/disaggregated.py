"""Disaggregated serving: one pool of engines prefills, another decodes, and the KV cache travels between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof._types import F64, freeze
from mfuroof.serving.inputs import Inputs, check_kind, serving_inputs
from mfuroof.serving.memory import cache_tokens
from mfuroof.serving.scheduler import Scheduler, scheduler_of
from mfuroof.serving.steps import Load, Steps, cut_prompts
from mfuroof.step import StepEvaluator

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["DisaggregatedResult", "disaggregated"]

_HALVINGS = 45
_LEAST_SPARE = 1e-12


@dataclass(frozen=True, eq=False)
class DisaggregatedResult:
    """Estimates of two pools for each configuration; float64 and read-only, of the shape the arguments broadcast to.

    NaN where the weights or a request do not fit; infinite times where an arrival rate is more than can be served.

    Parameters
    ----------
    ttft_s
        Submission to first token: queue, prefill and transfer. [s]
    tpot_s, e2e_latency_s
        As in `ServingResult`. [s]
    prefill_s, prefill_wait_s, transfer_s, decode_wait_s
        Parts of the TTFT: the prompt's steps, the queue before them, the KV cache on the link, and the queue for a
        place in the decode pool. [s]
    requests_per_s
        Of both pools together. [requests/s]
    output_tokens_per_s_per_gpu
        Over the GPUs of both pools. [tokens/s]
    decode_batch
        Requests in a step of one decode engine. [requests]
    prefill_utilization
        Share of the time that a prefill engine works. [fraction]
    prefill_limit_per_s, decode_limit_per_s
        Most that each pool could serve; they are equal where the pools are balanced. [requests/s]
    balance
        Prefill engines per decode engine that would make the two limits equal.
    """

    ttft_s: F64
    tpot_s: F64
    e2e_latency_s: F64
    prefill_s: F64
    prefill_wait_s: F64
    transfer_s: F64
    decode_wait_s: F64
    requests_per_s: F64
    output_tokens_per_s_per_gpu: F64
    decode_batch: F64
    prefill_utilization: F64
    prefill_limit_per_s: F64
    decode_limit_per_s: F64
    balance: F64

    def __len__(self) -> int:
        return self.ttft_s.size

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with one row a configuration."""
        import pyarrow as pa

        return pa.table({name: pa.array(column.ravel()) for name, column in vars(self).items()})


def disaggregated(
    prefill: StepEvaluator,
    decode: StepEvaluator,
    input_len: ArrayLike,
    output_len: ArrayLike,
    concurrency: ArrayLike | None = None,
    arrival_rate: ArrayLike | None = None,
    *,
    num_prefill: int = 1,
    num_decode: int = 1,
    cached_prefix_len: ArrayLike = 0,
    link_bytes_per_s: float | None = None,
    link_latency_s: float = 0.0,
    max_batch_tokens: ArrayLike | None = None,
    max_num_seqs: ArrayLike | None = None,
    scheduler: Scheduler | None = None,
    memory_utilization: float = 0.9,
    kv_capacity_tokens: int | None = None,
) -> DisaggregatedResult:
    """Return what clients of a prefill pool and a decode pool see, in the steady state.

    Parameters
    ----------
    prefill, decode
        One engine of each pool: the same model, on GPUs and in parallelisms of their own.
    input_len, output_len, concurrency, arrival_rate, cached_prefix_len, max_batch_tokens, max_num_seqs, scheduler
        As in `estimate`; ``output_len`` at least 2. [tokens, requests, requests/s]
    num_prefill, num_decode
        Engines of each pool.
    link_bytes_per_s
        Rate of one GPU towards the other pool; None for the network of the slower side. [bytes/s]
    link_latency_s
        Fixed time of a transfer. [s]
    memory_utilization, kv_capacity_tokens
        As in `estimate`, for one decode engine. [fraction, tokens]

    Raises
    ------
    InputError
        As in `estimate`; pools of two models; no link between the GPUs.

    Notes
    -----
    With X requests per second a prefill engine, one prompt of s seconds at a time, is busy the share
    rho = X s / num_prefill. Random arrivals wait W = rho^(sqrt(2 (n + 1)) - 1) s / (2 n (1 - rho)) for one of n
    engines (Sakasegawa's formula at constant service). The cache of a prompt takes latency + bytes / (rate x GPUs
    that it leaves or reaches, whichever are fewer). A decode engine with B requests serves B / ((O - 1) d(B)) per
    second, d(B) its step. A closed loop of c clients finds the B at which X (W + s + transfer) + num_decode B = c.
    """
    problems = Problems()
    counts = {"num_prefill": num_prefill, "num_decode": num_decode}
    for name, value in counts.items():
        counts[name] = problems.positive_int(name, value)
    latency = problems.number("link_latency_s", link_latency_s, 0.0, 1e6)
    if prefill.model.name != decode.model.name:
        problems.add("decode", decode.model.name, f"the model of the prefill pool, {prefill.model.name}")
    link = min(prefill.hardware.network_bytes_per_s, decode.hardware.network_bytes_per_s)
    if link_bytes_per_s is not None:
        if link_bytes_per_s != np.inf:
            link = problems.number("link_bytes_per_s", link_bytes_per_s, 0.0, 1e18, open_low=True)
        else:
            link = np.inf
    elif not link:
        problems.add("link_bytes_per_s", "no network in the catalogue", "the rate of the link")
    check_kind(problems, "scheduler", scheduler, Scheduler, 'scheduler_of("vllm")')
    problems.raise_if_any()
    policy = scheduler_of(decode.engine) if scheduler is None else scheduler
    inputs = serving_inputs(
        {"input_len": input_len, "output_len": output_len, "cached_prefix_len": cached_prefix_len},
        {
            "max_batch_tokens": policy.max_batch_tokens if max_batch_tokens is None else max_batch_tokens,
            "max_num_seqs": policy.max_num_seqs if max_num_seqs is None else max_num_seqs,
        },
        concurrency,
        arrival_rate,
    )
    if (inputs.output_len < 2).any():
        problems.add("output_len", 1, "at least 2: the first token comes from the prefill pool")
        problems.raise_if_any()
    cache = kv_capacity_tokens
    if cache is None:
        largest = int(inputs.max_batch_tokens.max(initial=1)), int(inputs.max_num_seqs.max(initial=1))
        cache = cache_tokens(decode, memory_utilization, *largest, stacklevel=2)
    pools = _Pools(prefill, decode, policy, inputs, counts["num_prefill"], counts["num_decode"], float(cache))
    gpus = min(prefill.parallel.num_gpus, decode.parallel.num_gpus)
    transfer = latency + inputs.input_len * decode.model.kv_bytes_per_token / (link * gpus)
    if concurrency is not None:
        return pools.closed(inputs.offered, transfer)
    return pools.open(inputs.offered, transfer)


class _Pools:
    """Rates and times of both pools for flat arrays of configurations."""

    def __init__(
        self,
        prefill: StepEvaluator,
        decode: StepEvaluator,
        policy: Scheduler,
        inputs: Inputs,
        num_prefill: int,
        num_decode: int,
        cache: float,
    ) -> None:
        self.shape, self.num_prefill, self.num_decode = inputs.shape, num_prefill, num_decode
        self.gpus = num_prefill * prefill.parallel.num_gpus + num_decode * decode.parallel.num_gpus
        self.gaps = inputs.output_len - 1.0
        self.overhead_s = policy.request_overhead_s
        self.lanes = decode.parallel.dp_size * decode.parallel.pp_size
        self.servers = num_prefill * prefill.parallel.dp_size * prefill.parallel.pp_size
        prefix = np.minimum(inputs.cached_prefix_len, inputs.input_len - 1.0)
        context = inputs.input_len + 0.5 * np.maximum(inputs.output_len - 2.0, 0.0)
        zero = np.zeros_like(context)
        self.load = Load(inputs.input_len - prefix, prefix, inputs.output_len, context, zero, inputs.max_batch_tokens)
        cut = cut_prompts(self.load, policy, zero)
        alone = Steps(prefill, policy).levels(self.load, cut, zero + 1.0, zero, 1)
        self.prefill_s = alone.last[0] + cut.full * alone.filled[0]
        self.steps, self.cut = Steps(decode, policy), cut
        whole = inputs.input_len + inputs.output_len
        share = cache / self.lanes
        self.fits = whole <= share
        by_cache = np.floor(share / (whole if policy.reserves_output else context))
        self.places = np.maximum(np.minimum(by_cache, inputs.max_num_seqs), 1.0)

    def step_s(self, batch: F64) -> F64:
        """Return the decode step of a real number of requests, at least 1, by its whole neighbours. [s]"""
        low = np.maximum(np.floor(batch), 1.0)
        at = self.steps.levels(self.load, self.cut, np.ones_like(low), low, 2).decode
        return at[0] + np.clip(batch - low, 0.0, 1.0) * (at[1] - at[0])

    def rate(self, batch: F64) -> F64:
        """Return requests per second of the decode pool with ``batch`` requests in each engine's lane."""
        return self.num_decode * self.lanes * batch / (self.gaps * self.step_s(batch))

    def wait_s(self, rate: F64) -> F64:
        """Return the queue before the prefill pool, beyond all bounds at its limit. [s]"""
        n = float(self.servers)
        rho = rate * self.prefill_s / n
        spare = np.maximum(1.0 - rho, _LEAST_SPARE)
        return 0.5 * np.minimum(rho, 1.0) ** (np.sqrt(2.0 * (n + 1.0)) - 1.0) * self.prefill_s / (n * spare)

    def closed(self, clients: F64, transfer: F64) -> DisaggregatedResult:
        """Return the steady state of ``clients`` that keep one request each in the system."""

        def held(batch: F64) -> F64:
            rate = self.rate(batch)
            before = others * self.wait_s(rate) + self.prefill_s + self.overhead_s + transfer
            return rate * before + self.num_decode * self.lanes * batch

        others = (clients - 1.0) / clients  # a client never queues behind itself
        low, high = np.zeros_like(clients), self.places
        crowded = held(high) < clients
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            over = held(middle) > clients
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        batch = np.where(crowded, self.places, low)
        rate = self.rate(batch)
        wait = others * self.wait_s(rate)
        parts = wait + self.prefill_s + self.overhead_s + transfer
        decode_wait = np.where(crowded, clients / rate - parts - self.gaps * self.step_s(batch), 0.0)
        return self._result(batch, rate, wait, transfer, np.maximum(decode_wait, 0.0))

    def open(self, arrivals: F64, transfer: F64) -> DisaggregatedResult:
        """Return the steady state under random arrivals."""
        most = self.rate(self.places)
        low, high = np.zeros_like(arrivals), self.places
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            over = self.rate(middle) > arrivals
            low, high = np.where(over, low, middle), np.where(over, middle, high)
        full = arrivals >= most
        batch = np.where(full, self.places, low)
        able = self.servers / self.prefill_s
        rate = np.minimum(np.minimum(arrivals, most), able)
        wait = np.where(arrivals < able, self.wait_s(arrivals), np.inf)
        return self._result(batch, rate, wait, transfer, np.where(full, np.inf, 0.0))

    def _result(self, batch: F64, rate: F64, wait: F64, transfer: F64, decode_wait: F64) -> DisaggregatedResult:
        tpot = self.step_s(batch)
        ttft = self.overhead_s + wait + self.prefill_s + transfer + decode_wait
        prefill_limit, decode_limit = self.servers / self.prefill_s, self.rate(self.places)
        columns = {
            "ttft_s": ttft,
            "tpot_s": tpot,
            "e2e_latency_s": ttft + self.gaps * tpot,
            "prefill_s": self.prefill_s,
            "prefill_wait_s": wait,
            "transfer_s": transfer,
            "decode_wait_s": decode_wait,
            "requests_per_s": rate,
            "output_tokens_per_s_per_gpu": rate * (self.gaps + 1.0) / self.gpus,
            "decode_batch": batch,
            "prefill_utilization": rate / prefill_limit,
            "prefill_limit_per_s": prefill_limit,
            "decode_limit_per_s": decode_limit,
            "balance": decode_limit / self.num_decode / (prefill_limit / self.num_prefill),
        }
        return DisaggregatedResult(
            **{n: freeze(np.where(self.fits, c, np.nan)).reshape(self.shape) for n, c in columns.items()}
        )
