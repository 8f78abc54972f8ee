"""`estimate`: TTFT, TPOT and throughput of many configurations at once, in closed form."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof._types import F64, U8, freeze
from mfuroof.serving.burst import burst
from mfuroof.serving.cycle import Cycle, cycle
from mfuroof.serving.eviction import evictions
from mfuroof.serving.inputs import Inputs, check_kind, serving_inputs
from mfuroof.serving.lengths import Lengths
from mfuroof.serving.memory import cache_tokens
from mfuroof.serving.result import Limit, ServingResult
from mfuroof.serving.scheduler import Scheduler, scheduler_of
from mfuroof.serving.speculative import Speculation
from mfuroof.serving.steps import Load, Steps
from mfuroof.step import StepEvaluator

__all__ = ["estimate"]

_USUAL_VARIATION = 0.1
"""Enough to spread requests out, too little to shift a mean. [fraction]"""
_TRIALS = 4
"""Secant steps towards the number of requests in flight: the end-to-end latency is then right to 0.1 %."""


def estimate(
    evaluator: StepEvaluator,
    input_len: ArrayLike,
    output_len: ArrayLike,
    concurrency: ArrayLike | None = None,
    arrival_rate: ArrayLike | None = None,
    *,
    cached_prefix_len: ArrayLike = 0,
    length_distribution: Any = None,
    requests_per_client: float = 10.0,
    max_batch_tokens: ArrayLike | None = None,
    max_num_seqs: ArrayLike | None = None,
    scheduler: Scheduler | None = None,
    memory_utilization: float = 0.9,
    kv_capacity_tokens: int | None = None,
    speculation: Speculation | None = None,
) -> ServingResult:
    """Return what clients of an engine see; every argument that says ArrayLike broadcasts.

    Parameters
    ----------
    evaluator
        Model, GPUs and engine.
    input_len, output_len
        Prompt and generated tokens of a request, at least 1. [tokens]
    concurrency
        Clients of the replica that each keep one request in flight: a closed loop. [requests]
    arrival_rate
        In its place: rate of random (Poisson) arrivals, an open loop. [requests/s]
    cached_prefix_len
        Tokens of each prompt that a prefix cache holds, once for all requests; at least one token of a prompt is
        always computed. [tokens]
    length_distribution
        How lengths vary: ``"fixed"``, ``"uniform"`` (between 0.8 and 1 times those given), a `Lengths`, or an array of
        samples relative to those given. None: those given are means, and the scheduler says whether requests keep
        together.
    requests_per_client
        Requests a client sends one after another from a common start, as benchmarks do: the first of each are one
        burst, whose prompts queue behind one another. ``inf`` leaves the start out.
    max_batch_tokens, max_num_seqs
        In place of the scheduler's: token budget of a step, and requests in flight in one engine. [tokens, requests]
    scheduler
        How steps are composed; None for that of the evaluator's engine.
    memory_utilization
        Share of the memory that may be used, where the capacity is computed. [fraction]
    kv_capacity_tokens
        Size of the KV cache of the replica; None for that of `mfuroof.kv_capacity`. [tokens]
    speculation
        Speculative decoding; None for none.

    Returns
    -------
    ServingResult
        Arrays of the shape the arguments broadcast to.

    Raises
    ------
    InputError
        Arguments out of range, of another kind or of shapes that do not broadcast; neither or both of
        ``concurrency`` and ``arrival_rate``.

    Warns
    -----
    MfuroofWarning
        The model itself does not fit the memory.

    Notes
    -----
    `mfuroof.serving.cycle` and `mfuroof.serving.burst` derive the formulas; `mfuroof.serving.replay` simulates what
    they describe. Little's law holds
    between ``concurrency``, ``requests_per_s`` and ``e2e_latency_s``. Attention data-parallel ranks and the batches
    that follow one another through a pipeline are engines with an equal share of cache and load.

    Examples
    --------
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> r = estimate(evaluator, 1024, 512, concurrency=[1, 16, 64])
    >>> bool((np.diff(r.tpot_s) > 0).all() and (np.diff(r.output_tokens_per_s_per_gpu) > 0).all())
    True
    """
    problems = Problems()
    waves = (
        requests_per_client
        if requests_per_client == np.inf
        else problems.number("requests_per_client", requests_per_client, 1.0, 1e12)
    )
    if kv_capacity_tokens is not None:
        kv_capacity_tokens = problems.positive_int("kv_capacity_tokens", kv_capacity_tokens)
    check_kind(problems, "scheduler", scheduler, Scheduler, 'scheduler_of("vllm")')
    check_kind(problems, "speculation", speculation, Speculation, "Speculation(3, acceptance=0.7)")
    problems.raise_if_any()
    policy = scheduler_of(evaluator.engine) if scheduler is None else scheduler
    unknown = Lengths(1.0, 0.0 if policy.keeps_together else _USUAL_VARIATION)
    spread = unknown if length_distribution is None else Lengths.named(length_distribution)
    inputs = serving_inputs(
        {"input_len": input_len, "output_len": output_len, "cached_prefix_len": cached_prefix_len},
        {
            "max_batch_tokens": policy.max_batch_tokens if max_batch_tokens is None else max_batch_tokens,
            "max_num_seqs": policy.max_num_seqs if max_num_seqs is None else max_num_seqs,
        },
        concurrency,
        arrival_rate,
    )
    lanes = evaluator.parallel.dp_size * evaluator.parallel.pp_size
    cache = kv_capacity_tokens
    if cache is None:
        largest = int(inputs.max_batch_tokens.max(initial=1)), int(inputs.max_num_seqs.max(initial=1))
        cache = cache_tokens(evaluator, memory_utilization, *largest, stacklevel=2)
    load = _load(inputs, spread)
    places = _places(inputs, load, policy, cache / lanes)
    steps = Steps(evaluator, policy, speculation)
    if concurrency is not None:
        held = np.maximum(inputs.offered / lanes, 1.0)
        flow = _closed(load, held, places, policy, steps, waves)
        in_system, rate = inputs.offered, inputs.offered / flow.e2e_s
    else:
        flow, per_engine = _open(load, inputs.offered / lanes, places, policy, steps)
        rate = np.minimum(inputs.offered, per_engine * lanes)
        in_system = inputs.offered * flow.e2e_s
    return _result(evaluator, inputs, load, places, flow, in_system, rate, cache, speculation)


class Places(NamedTuple):
    """Room of one engine, arrays (n,)."""

    most: F64
    """Requests in flight at most. [requests]"""
    tokens: F64
    """Mean cache tokens of a request in flight, without a shared prefix."""
    limit: U8
    """Which `Limit` says so."""


class Flow(NamedTuple):
    """Times of a request and requests of one engine, arrays (n,)."""

    ttft_s: F64
    queue_s: F64
    tpot_s: F64
    e2e_s: F64
    running: F64
    waiting: F64
    state: Cycle


def _load(inputs: Inputs, spread: Lengths) -> Load:
    prompt, output = inputs.input_len * spread.mean_fraction, np.maximum(inputs.output_len * spread.mean_fraction, 1.0)
    prompt = np.maximum(prompt, 1.0)
    prefix = np.minimum(inputs.cached_prefix_len, prompt - 1.0)
    varied = np.full_like(prompt, spread.variation)
    # long outputs are met more often than short ones: the mean over time is (1 + variation^2) / 2 of the mean length
    context = prompt + 0.5 * np.maximum(output * (1.0 + spread.variation**2) - 2.0, 0.0)
    return Load(prompt - prefix, prefix, output, context, varied, inputs.max_batch_tokens)


def _places(inputs: Inputs, load: Load, policy: Scheduler, cache: float) -> Places:
    """Return how many requests an engine holds at a time; the cache holds a shared prefix once for all of them.

    Where room for all that a request may become is reserved, that is the mean number whose lengths in turn do not add
    up to more than the cache: the sum over n of P(n lengths <= cache).
    """
    whole = load.new_tokens + load.output_len
    mean = load.new_tokens + 0.5 * load.output_len * (1.0 + load.variation**2)
    ratio = np.maximum((cache - load.prefix) / (whole if policy.reserves_output else mean), 0.0)
    by_cache = np.floor(ratio)
    if policy.reserves_output:
        by_cache = np.minimum(by_cache, _admitted(ratio, load.variation))
    limit = np.where(by_cache < inputs.max_num_seqs, Limit.KV_CACHE, Limit.MAX_NUM_SEQS).astype(np.uint8)
    limit[load.prefix + whole > cache] = Limit.DOES_NOT_FIT
    return Places(np.maximum(np.minimum(by_cache, inputs.max_num_seqs), 1.0), mean, limit)


def _admitted(ratio: F64, variation: F64) -> F64:
    """Return how many requests of varying length fit a cache of ``ratio`` mean lengths, in the mean.

    The normal distribution function is taken by the logistic one of slope 1.702, right to 0.01.
    """
    spread = np.maximum(variation * np.sqrt(np.maximum(ratio, 1.0)), 1e-9)
    nearest = np.floor(ratio)
    around = nearest + np.arange(-2, 4)[:, None]
    chance = 1.0 / (1.0 + np.exp(-np.clip(1.702 * (ratio + 1e-6 - around) / spread, -500.0, 500.0)))
    some = np.maximum(nearest - 3.0, 0.0) + np.where(around > 0, chance, 0.0).sum(axis=0)
    return np.where(spread > 1.0, np.maximum(ratio - 0.5, 1.0), some)


def _closed(load: Load, held: F64, places: Places, policy: Scheduler, steps: Steps, waves: float) -> Flow:
    """Return the flow where ``held`` requests are always in the system.

    The first of ``waves`` requests of each client is one burst. Those that find no place wait: once the loop turns,
    for (held - running) / running cycles; at the start, the first find places free. Those that a full cache throws out
    have their first token: their wait, and what is computed again for them, slow the tokens behind it.
    """
    running = np.minimum(held, places.most)
    state = cycle(load, running - 1.0, policy, steps, overhead_s=policy.request_overhead_s, closed=True)
    start, end = (t + policy.request_overhead_s for t in burst(load, running, policy, steps))
    ttft, tpot = state.wait_s + state.prefill_s, state.tpot_s
    first = 1.0 / waves
    # prompts of others that slow a request down: half as many in the last wave, behind which none follows
    tpot = tpot - 0.5 * first * np.maximum(tpot - state.decode_step_s, 0.0)
    gaps = load.output_len - 1.0
    if not policy.mixes:  # requests of one length that start together end together, and start together again
        together = load.variation == 0
        paused = (end - start) / np.maximum(gaps, 1.0)
        ttft, tpot = np.where(together, start, ttft), np.where(together, state.decode_step_s + paused, tpot)
    ttft = first * start + (1.0 - first) * ttft
    waiting = held - running
    for_room = np.where(places.limit == Limit.KV_CACHE, waiting, 0.0)
    thrown_out = evictions(load, policy, running, for_room)
    tpot = tpot + thrown_out.again * np.maximum(state.tpot_s - state.decode_step_s, 0.0)
    turn = (ttft + gaps * tpot) / running
    paused = np.where(gaps > 0, thrown_out.paused, 0.0)
    tpot = tpot + turn * paused / np.maximum(gaps, 1.0)
    waiting = waiting - paused
    queue = turn * waiting * ((1.0 - first) + first * waiting / (2.0 * held))
    return Flow(ttft + queue, queue, tpot, ttft + queue + gaps * tpot, running, waiting, state)


def _open(load: Load, rate: F64, places: Places, policy: Scheduler, steps: Steps) -> tuple[Flow, F64]:
    """Return the flow where requests arrive at random, and the rate of one engine at its limit.

    The number in flight solves B = rate T(B) (Little's law), T(B) the time of a request among B others; B is found
    by secants. Where even at the limit rate T(B) exceeds B, the queue grows without end.
    """
    gaps = load.output_len - 1.0

    def at(others: F64) -> tuple[Cycle, F64]:
        state = cycle(load, others, policy, steps, overhead_s=policy.request_overhead_s, closed=False)
        return state, state.wait_s + state.prefill_s + gaps * state.tpot_s

    low, high = np.zeros_like(rate), places.most
    state, at_limit = at(high)
    endless = np.where(places.limit == Limit.KV_CACHE, np.inf, 0.0)
    again = evictions(load, policy, high, endless).again
    at_limit = at_limit + gaps * again * np.maximum(state.tpot_s - state.decode_step_s, 0.0)
    before, short = low, rate * at(low)[1]
    full = rate * at_limit >= high
    spare = np.where(full, 1.0, short - rate * at_limit + high)  # positive where there is room
    running = np.where(full, high, high * np.where(full, 0.0, short) / spare)
    for trial in range(_TRIALS):
        state, total = at(running)
        excess = rate * total - running
        if trial + 1 == _TRIALS:
            break
        low, high = np.where(excess > 0, running, low), np.where(excess > 0, high, running)
        slope = (excess - short) / np.where(running == before, 1.0, running - before)
        before, short = running, excess
        running = np.where(full, places.most, np.clip(running - excess / np.where(slope < 0, slope, -1.0), low, high))
    queue = np.where(full, np.inf, 0.0)
    ttft = state.wait_s + state.prefill_s + queue
    flow = Flow(ttft, queue, state.tpot_s, total + queue, running, queue, state)
    return flow, places.most / np.maximum(at_limit, 1e-300)


def _result(
    evaluator: StepEvaluator,
    inputs: Inputs,
    load: Load,
    places: Places,
    flow: Flow,
    in_system: F64,
    rate: F64,
    cache: float,
    speculation: Speculation | None,
) -> ServingResult:
    lanes = evaluator.parallel.dp_size * evaluator.parallel.pp_size
    gpus = evaluator.parallel.num_gpus
    limit = np.where(flow.waiting > 0, places.limit, np.where(flow.state.crowded, Limit.TOKEN_BUDGET, Limit.LOAD))
    limit = np.where(places.limit == Limit.DOES_NOT_FIT, places.limit, limit).astype(np.uint8)
    running = np.minimum(flow.running * lanes, in_system)
    prompt = load.prefix + load.new_tokens
    held = running * places.tokens + lanes * load.prefix
    columns = {
        "input_len": prompt,
        "output_len": load.output_len,
        "concurrency": in_system,
        "ttft_s": flow.ttft_s,
        "tpot_s": flow.tpot_s,
        "itl_s": flow.tpot_s * (1.0 if speculation is None else speculation.tokens_per_step),
        "e2e_latency_s": flow.e2e_s,
        "queue_s": flow.queue_s,
        "requests_per_s": rate,
        "output_tokens_per_s_per_gpu": rate * load.output_len / gpus,
        "tokens_per_s_per_gpu": rate * (prompt + load.output_len) / gpus,
        "running_batch": running,
        "max_running_batch": places.most * lanes,
        "decode_batch": flow.state.decoding,
        "decode_context": load.context,
        "decode_step_s": flow.state.decode_step_s,
        "mixed_step_s": flow.state.mixed_step_s,
        "kv_tokens": held,
        "kv_utilization": held / max(cache, 1.0),
    }
    given = ("input_len", "output_len", "decode_context")
    missing = limit == Limit.DOES_NOT_FIT
    shaped = {
        name: freeze(np.where(missing & (name not in given), np.nan, column)).reshape(inputs.shape)
        for name, column in columns.items()
    }
    codes = (freeze(c, np.uint8).reshape(inputs.shape) for c in (limit, places.limit))
    return ServingResult(evaluator, **shaped, **dict(zip(("limit", "first_limit"), codes, strict=True)))
