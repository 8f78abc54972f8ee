"""The replay equals a plain-Python simulation, and is what the closed form describes."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import naive_serving as naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof import Parallel, StepBatch
from mfuroof.errors import InputError, UnknownNameError
from mfuroof.serving import SCHEDULERS, Lengths, Scheduler, estimate, replay, scheduler_of

STEP, TOKEN, CONTEXT = 8e-3, 40e-6, 2e-9


class Affine:
    """An evaluator whose steps take a fixed time, a time per token and a time per token read."""

    engine, model = "vllm", SimpleNamespace(num_hidden_layers=10, name="affine")

    def __init__(self, dp_size=1, pp_size=1):
        self.parallel = Parallel(dp_size=dp_size, pp_size=pp_size)

    def step_time(self, batch: StepBatch, threads: int = 1) -> np.ndarray:
        c = batch.columns
        if batch.form == "uniform":
            present = np.where(c.prefill_new_tokens > 0, c.prefill_batch, 0)
            reads = c.decode_batch * c.decode_context + present * (c.prefill_context + c.prefill_new_tokens)
            tokens = c.decode_batch + present * c.prefill_new_tokens
            return np.broadcast_to(STEP * (tokens > 0) + TOKEN * tokens + CONTEXT * reads, len(batch)).copy()
        sums = [
            np.add.reduceat(np.append(x, 0), o[:-1]) * (np.diff(o) > 0)
            for x, o in (
                (c.decode_contexts, c.decode_offsets),
                (c.prefill_contexts + c.prefill_new_tokens, c.prefill_offsets),
                (c.prefill_new_tokens, c.prefill_offsets),
            )
        ]
        tokens = np.diff(c.decode_offsets) + sums[2]
        return STEP * (tokens > 0) + TOKEN * tokens + CONTEXT * (sums[0] + sums[1])


def step_time(contexts, prompts):
    tokens = len(contexts) + sum(new for _, new in prompts)
    return STEP + TOKEN * tokens + CONTEXT * (sum(contexts) + sum(held + new for held, new in prompts))


def as_dict(s: Scheduler) -> dict:
    return {
        "mixes": s.mixes,
        "chunks": s.chunks,
        "reserves": s.reserves_output,
        "keeps_evicted": s.keeps_evicted,
        "budget": s.max_batch_tokens,
        "seats": s.max_num_seqs,
        "lag": s.lag_steps,
        "overhead": s.request_overhead_s,
        "launch_tokens": s.launch_tokens,
        "launch_s": 10 * s.layer_launch_s,
    }


schedulers = st.builds(
    Scheduler,
    mixes=st.booleans(),
    chunks=st.booleans(),
    reserves_output=st.booleans(),
    keeps_evicted=st.booleans(),
    max_batch_tokens=st.integers(8, 80),
    max_num_seqs=st.integers(1, 6),
    lag_steps=st.integers(1, 3),
    launch_tokens=st.integers(1, 64),
    layer_launch_s=st.sampled_from([0.0, 1e-3]),
    request_overhead_s=st.sampled_from([0.0, 3e-3, 0.2]),
)


@given(
    scheduler=schedulers,
    requests=st.lists(
        st.tuples(st.integers(1, 60), st.integers(1, 12), st.integers(0, 40), st.floats(0, 0.5)),
        min_size=1,
        max_size=12,
    ),
    clients=st.integers(0, 4),
    kv_tokens=st.integers(20, 400),
)
def test_replay_equals_the_plain_simulation(scheduler, requests, clients, kv_tokens):
    prompts, outputs, cached, arrivals = (list(x) for x in zip(*requests, strict=True))
    arrivals = sorted(arrivals)
    given_arrivals = [math.nan] * len(requests) if clients else arrivals
    expected = naive.serve(
        step_time, prompts, outputs, cached, given_arrivals, clients, as_dict(scheduler), kv_tokens, think_s=0.01
    )
    load = {"clients": clients} if clients else {"arrival_s": arrivals}
    times = replay(
        Affine(),
        prompts,
        outputs,
        **load,
        think_s=0.01,
        cached_prefix_len=cached,
        scheduler=scheduler,
        kv_capacity_tokens=kv_tokens,
    )
    got = np.stack([times.arrival_s, times.first_token_s, times.end_s], axis=1)
    npt.assert_allclose(got, np.array(expected, dtype=float), rtol=1e-9, atol=1e-12)


@given(st.integers(1, 5000), st.integers(1, 300), st.sampled_from(sorted(SCHEDULERS)))
def test_one_request_takes_its_prompt_and_its_decode_steps(prompt, output, engine):
    scheduler = SCHEDULERS[engine]
    times = replay(Affine(), [prompt], [output], [1.0], scheduler=scheduler, kv_capacity_tokens=10**6)
    prefill = STEP + (TOKEN + CONTEXT) * prompt + scheduler.launch_s(prompt, 10)
    decode = sum(STEP + TOKEN + CONTEXT * (prompt + i) for i in range(output - 1))
    assert times.ttft_s[0] == pytest.approx(scheduler.request_overhead_s + prefill)
    assert times.e2e_latency_s[0] == pytest.approx(times.ttft_s[0] + decode)
    assert times.steps == output


GRID = [(i, o, c) for i in (64, 1024, 4096) for o in (64, 256, 1024) for c in (1, 4, 16, 64) if c * o <= 16384]


@pytest.mark.parametrize("engine", sorted(SCHEDULERS))
@pytest.mark.parametrize("budget", [8192, 2048])
def test_closed_form_agrees_with_the_replay(engine, budget):
    scheduler = replace(SCHEDULERS[engine], max_batch_tokens=budget)
    if not scheduler.chunks and budget < 4096:
        pytest.skip("such an engine takes no prompt above its budget")
    rng, errors = np.random.default_rng(2), []
    for prompt, output, clients in GRID:
        n = 10 * clients
        prompts, outputs = (rng.integers(int(0.8 * x), int(1.2 * x) + 1, n) for x in (prompt, output))
        times = replay(Affine(), prompts, outputs, clients=clients, scheduler=scheduler, kv_capacity_tokens=10**9)
        e = estimate(
            Affine(),
            prompt,
            output,
            clients,
            scheduler=scheduler,
            kv_capacity_tokens=10**9,
            length_distribution=Lengths(1.0, 0.115),
        )
        mean = times.mean()
        errors.append([float(getattr(e, k)) / mean[k] - 1 for k in ("ttft_s", "tpot_s", "e2e_latency_s")])
    ttft, tpot, e2e = np.abs(errors).T
    assert ttft.mean() < 0.06 and ttft.max() < 0.30
    assert tpot.mean() < 0.02 and tpot.max() < 0.10
    assert e2e.mean() < 0.025 and e2e.max() < 0.10


@pytest.mark.parametrize("engine", sorted(SCHEDULERS))
def test_open_loop_agrees_with_the_replay(engine):
    scheduler, rng, errors = SCHEDULERS[engine], np.random.default_rng(4), []
    for prompt, output, rate in ((1000, 200, 1.0), (1000, 200, 6.0), (4000, 100, 2.0), (200, 400, 10.0)):
        n = int(max(300, 100 * rate))
        prompts, outputs = (rng.integers(int(0.8 * x), int(1.2 * x) + 1, n) for x in (prompt, output))
        arrivals = np.cumsum(rng.exponential(1 / rate, n))
        times = replay(Affine(), prompts, outputs, arrivals, scheduler=scheduler, kv_capacity_tokens=10**9)
        middle = slice(n // 4, 3 * n // 4)
        e = estimate(Affine(), prompt, output, arrival_rate=rate, scheduler=scheduler, kv_capacity_tokens=10**9)
        errors.append(
            [
                float(e.ttft_s) / times.ttft_s[middle].mean() - 1,
                float(e.e2e_latency_s) / times.e2e_latency_s[middle].mean() - 1,
            ]
        )
    ttft, e2e = np.abs(errors).T
    assert ttft.mean() < 0.10 and ttft.max() < 0.25
    assert e2e.mean() < 0.06 and e2e.max() < 0.12


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_full_cache_agrees_with_the_replay(engine):
    scheduler, rng = SCHEDULERS[engine], np.random.default_rng(1)
    for prompt, output, cache, clients in ((1024, 512, 20000, 32), (500, 1000, 30000, 64)):
        n = 10 * clients
        prompts, outputs = (rng.integers(int(0.9 * x), int(1.1 * x) + 1, n) for x in (prompt, output))
        times = replay(Affine(), prompts, outputs, clients=clients, scheduler=scheduler, kv_capacity_tokens=cache)
        e = estimate(
            Affine(),
            prompt,
            output,
            clients,
            scheduler=scheduler,
            kv_capacity_tokens=cache,
            length_distribution=Lengths(1.0, 0.06),
        )
        assert e.limit_names == ["kv_cache"]
        assert float(e.ttft_s) == pytest.approx(times.mean()["ttft_s"], rel=0.1)
        assert float(e.tpot_s) == pytest.approx(times.mean()["tpot_s"], rel=0.03)


def test_requests_that_fit_no_cache_are_counted():
    times = replay(Affine(), [10, 500, 10], [5, 5, 5], clients=1, kv_capacity_tokens=100)
    assert times.failed == 1 and np.isnan(times.ttft_s[1])
    assert not np.isnan(times.end_s[[0, 2]]).any()
    assert "1 do not fit" in repr(times)
    nothing = replay(Affine(), [500], [5], clients=1, kv_capacity_tokens=100)
    assert nothing.failed == 1 and math.isnan(nothing.duration_s) and math.isnan(nothing.mean()["ttft_s"])
    assert np.isnan(nothing.percentiles()["ttft_s"]).all() and "1 do not fit" in repr(nothing)


def test_ranks_share_requests_and_cache():
    alone = replay(Affine(), [100] * 4, [20] * 4, clients=2, kv_capacity_tokens=500)
    spread = replay(Affine(dp_size=2), [100] * 8, [20] * 8, clients=4, kv_capacity_tokens=1000)
    npt.assert_allclose(np.sort(spread.end_s), np.sort(np.tile(alone.end_s, 2)))
    assert spread.num_gpus == 2


def test_a_prefix_cache_never_slows_a_trace():
    rng = np.random.default_rng(0)
    prompts, outputs, arrivals = rng.integers(50, 900, 60), rng.integers(2, 80, 60), np.cumsum(rng.exponential(0.2, 60))
    ends = [
        replay(Affine(), prompts, outputs, arrivals, cached_prefix_len=cached, kv_capacity_tokens=10**6).mean()
        for cached in (0, 30, 400)
    ]
    assert ends[0]["e2e_latency_s"] >= ends[1]["e2e_latency_s"] >= ends[2]["e2e_latency_s"]


def test_times_as_a_table():
    times = replay(Affine(), [64] * 6, [8, 8, 8, 8, 1, 1], clients=2, kv_capacity_tokens=10**5)
    table = times.to_arrow()
    assert table.num_rows == 6 and "ttft_s" in table.column_names
    assert np.isnan(times.tpot_s[4]) and times.percentiles(50.0)["tpot_s"].shape == (1,)
    assert times.output_tokens_per_s_per_gpu == pytest.approx(34 / times.duration_s)
    assert "ttft" in repr(times)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"input_len": [0], "output_len": [1], "clients": 1}, "input_len"),
        ({"input_len": [5, 5], "output_len": [1], "clients": 1}, "output_len"),
        ({"input_len": [5], "output_len": [1]}, "neither"),
        ({"input_len": [5], "output_len": [1], "clients": 1, "arrival_s": [0.0]}, "both"),
        ({"input_len": [5], "output_len": [1], "arrival_s": [math.nan]}, "arrival_s"),
        ({"input_len": [5], "output_len": [1], "arrival_s": ["a"]}, "arrival_s"),
        ({"input_len": [5], "output_len": [1], "clients": 0}, "clients"),
        ({"input_len": [5], "output_len": [1], "clients": 1, "kv_capacity_tokens": 0}, "kv_capacity_tokens"),
        ({"input_len": [5, 6, 7], "output_len": [1, 2, 3], "clients": 1, "cached_prefix_len": [1, 2]}, "cached"),
    ],
)
def test_bad_traces_are_named(arguments, text):
    with pytest.raises(InputError, match=text):
        replay(Affine(), **{"kv_capacity_tokens": 100, **arguments})


def test_schedulers_are_checked_and_named():
    with pytest.raises(InputError, match="max_batch_tokens") as caught:
        Scheduler(max_batch_tokens=0, lag_steps=0, request_overhead_s=-1.0, mixes=1)
    assert len(caught.value.problems) == 4
    assert scheduler_of("vllm").mixes and not scheduler_of("sglang").mixes
    assert scheduler_of("sglang").changed()["mixes"] is False
    with pytest.raises(UnknownNameError, match="vllm"):
        scheduler_of("vlm")
