"""`replay`: serve given requests on a simulated engine, request by request."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems, count_array
from mfuroof._types import F64, I64, freeze
from mfuroof.serving.engine import Engine
from mfuroof.serving.inputs import check_kind
from mfuroof.serving.memory import cache_tokens
from mfuroof.serving.requests import RequestTimes
from mfuroof.serving.scheduler import Scheduler, scheduler_of
from mfuroof.step import StepEvaluator

__all__ = ["replay"]


def replay(
    evaluator: StepEvaluator,
    input_len: ArrayLike,
    output_len: ArrayLike,
    arrival_s: ArrayLike | None = None,
    *,
    clients: int | None = None,
    think_s: float = 0.0,
    cached_prefix_len: ArrayLike = 0,
    scheduler: Scheduler | None = None,
    kv_capacity_tokens: int | None = None,
    memory_utilization: float = 0.9,
) -> RequestTimes:
    """Serve requests with continuous batching on the step times of ``evaluator``.

    Parameters
    ----------
    evaluator
        Model, GPUs and engine.
    input_len, output_len : shape (n,)
        Prompt and generated tokens of each request, at least 1. [tokens]
    arrival_s : shape (n,)
        When each request is submitted: a trace. [s]
    clients
        In place of ``arrival_s``: that many clients, each submitting its next request when its last one has ended, in
        the order given (a closed loop that starts with a burst).
    think_s
        Pause of a client between the end of a request and the next one. [s]
    cached_prefix_len : shape (n,) or scalar
        Tokens of each prompt that a prefix cache holds, once for all requests; at least one token of a prompt is
        always computed. [tokens]
    scheduler
        How steps are composed; None for that of the evaluator's engine.
    kv_capacity_tokens
        Size of the KV cache of the replica; None for that of `mfuroof.kv_capacity`. [tokens]
    memory_utilization
        Share of the memory that may be used, where the capacity is computed. [fraction]

    Returns
    -------
    RequestTimes
        One entry a request, in the order given.

    Raises
    ------
    InputError
        Arguments out of range or of different lengths; neither or both of ``arrival_s`` and ``clients``.

    Notes
    -----
    ``dp_size`` attention ranks, and ``pp_size`` batches that follow one another through a pipeline, are engines of
    their own with an equal share of the cache and, in turn, of the requests or clients.

    Examples
    --------
    >>> from mfuroof import StepEvaluator
    >>> evaluator = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    >>> times = replay(evaluator, [1024] * 8, [128] * 8, clients=4)
    >>> bool((times.ttft_s[4:] < times.ttft_s[:4].max()).all())
    True
    """
    problems = Problems()
    prompts, outputs, prefixes = _columns(input_len, output_len, cached_prefix_len, problems)
    n = prompts.size
    arrival = _arrivals(arrival_s, clients, n, problems)
    count = 0 if clients is None else problems.positive_int("clients", clients)
    pause = problems.number("think_s", think_s, 0.0, 1e9)
    if kv_capacity_tokens is not None:
        kv_capacity_tokens = problems.positive_int("kv_capacity_tokens", kv_capacity_tokens)
    check_kind(problems, "scheduler", scheduler, Scheduler, 'scheduler_of("vllm")')
    problems.raise_if_any()
    policy = scheduler_of(evaluator.engine) if scheduler is None else scheduler
    capacity = kv_capacity_tokens
    if capacity is None:
        capacity = cache_tokens(evaluator, memory_utilization, policy.max_batch_tokens, policy.max_num_seqs, 2)
    lanes = evaluator.parallel.dp_size * evaluator.parallel.pp_size
    times = np.full((3, n), np.nan)
    times[0] = arrival
    steps = preemptions = 0
    for lane in range(lanes):
        mine = np.arange(lane, n, lanes)
        share = len(range(lane, count, lanes))
        if mine.size == 0 or (count and not share):
            continue
        engine = Engine(
            evaluator,
            policy,
            capacity // lanes,
            prompts[mine],
            outputs[mine],
            prefixes[mine],
            arrival[mine],
            share,
            pause,
        )
        engine.run()
        times[:, mine] = engine.arrival, engine.first, engine.end
        steps, preemptions = steps + engine.steps, preemptions + engine.preemptions
    return RequestTimes(
        input_len=prompts,
        output_len=outputs,
        arrival_s=freeze(times[0]),
        first_token_s=freeze(times[1]),
        end_s=freeze(times[2]),
        steps=steps,
        preemptions=preemptions,
        num_gpus=evaluator.parallel.num_gpus,
    )


def _columns(input_len: Any, output_len: Any, cached: Any, problems: Problems) -> tuple[I64, I64, I64]:
    prompts = count_array("input_len", input_len, problems, minimum=1)
    outputs = count_array("output_len", output_len, problems, minimum=1)
    prefixes = count_array("cached_prefix_len", cached, problems)
    if not problems:
        if outputs.size != prompts.size:
            problems.add("output_len", f"{outputs.size} values", f"{prompts.size} as in input_len")
        if prefixes.size not in (1, prompts.size):
            problems.add("cached_prefix_len", f"{prefixes.size} values", f"one, or {prompts.size} as in input_len")
    problems.raise_if_any()
    return prompts, outputs, np.broadcast_to(prefixes, prompts.shape)


def _arrivals(arrival_s: Any, clients: int | None, n: int, problems: Problems) -> F64:
    if (arrival_s is None) == (clients is None):
        both = "both arrival_s and clients" if clients is not None else "neither arrival_s nor clients"
        problems.add("requests", both, "one of them")
        return np.zeros(n)
    if arrival_s is None:
        return np.full(n, np.nan)
    try:
        arrival = np.asarray(arrival_s, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        arrival = np.empty(0)
    if arrival.size != n or not np.isfinite(arrival).all():
        problems.add("arrival_s", f"{arrival.size} values", f"{n} finite times, one a request")
        return np.zeros(n)
    return arrival
