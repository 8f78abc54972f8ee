"""Laws of the closed-form serving estimates, with their options and their complaints."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof import ModelConfig, StepBatch, StepEvaluator
from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.serving import SCHEDULERS, Lengths, Limit, Scheduler, Speculation, disaggregated, estimate

BIG = 10**9
CONCURRENCY = np.unique((2 ** np.arange(0, 9.01, 0.5)).astype(int))


def small_model() -> ModelConfig:
    return ModelConfig(
        hidden_size=4096,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        intermediate_size=14336,
        vocab_size=128256,
    )


@pytest.fixture(scope="module")
def roofline() -> StepEvaluator:
    return StepEvaluator(small_model(), "h100_sxm", cost="constant_mfu")


@pytest.fixture(scope="module")
def kernels() -> StepEvaluator:
    return StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")


lengths = st.tuples(st.integers(16, 8000), st.integers(16, 2000))
engines = st.sampled_from(sorted(SCHEDULERS))
spreads = st.sampled_from(["fixed", "uniform", None])


def limited_at(result) -> int:
    free = result.limit == Limit.LOAD
    return len(free) if free.all() else int(np.argmin(free))


@given(lengths, engines, spreads, st.sampled_from([1.0, 10.0, math.inf]), st.integers(1000, 200_000))
def test_littles_law_holds_in_a_closed_loop(roofline, shape, engine, spread, requests, cache):
    r = estimate(
        roofline,
        *shape,
        CONCURRENCY,
        scheduler=SCHEDULERS[engine],
        length_distribution=spread,
        requests_per_client=requests,
        kv_capacity_tokens=cache,
    )
    npt.assert_allclose(r.requests_per_s[r.fits] * r.e2e_latency_s[r.fits], CONCURRENCY[r.fits], rtol=1e-12)
    npt.assert_allclose(r.e2e_latency_s, r.ttft_s + (r.output_len - 1) * r.tpot_s, rtol=1e-12)
    npt.assert_allclose(r.output_tokens_per_s_per_gpu, r.requests_per_s * r.output_len, rtol=1e-12)
    assert (np.isfinite(r.ttft_s) & np.isfinite(r.tpot_s))[r.fits].all()
    assert np.isnan(r.ttft_s[~r.fits]).all() and np.isnan(r.requests_per_s[~r.fits]).all()
    assert (r.running_batch <= CONCURRENCY)[r.fits].all()
    assert r.fits.all() == (r.input_len[0] + r.output_len[0] <= cache)


@given(lengths, engines, st.sampled_from(["fixed", "uniform"]), st.integers(0, 4000))
def test_more_clients_mean_more_throughput_and_slower_tokens(roofline, kernels, shape, engine, spread, prefix):
    for evaluator, slack in ((roofline, 1e-9), (kernels, 0.04)):
        r = estimate(
            evaluator,
            *shape,
            CONCURRENCY,
            scheduler=SCHEDULERS[engine],
            length_distribution=spread,
            cached_prefix_len=min(prefix, shape[0] - 1),
            kv_capacity_tokens=BIG,
        )
        free = slice(0, limited_at(r))
        assert (np.diff(np.log(r.requests_per_s[free])) >= -slack).all()
        assert (np.diff(np.log(r.tpot_s[free])) >= -slack).all()


@given(st.integers(16, 2000), engines, st.sampled_from(["fixed", "uniform"]), st.integers(1, 200))
def test_longer_prompts_wait_longer(roofline, output, engine, spread, clients):
    r = estimate(
        roofline,
        2 ** np.arange(4, 15),
        output,
        clients,
        scheduler=SCHEDULERS[engine],
        length_distribution=spread,
        kv_capacity_tokens=BIG,
    )
    assert (np.diff(r.ttft_s) >= 0).all()


@given(lengths, engines, st.sampled_from(["fixed", "uniform"]), st.integers(1, 200))
def test_a_prefix_cache_never_slows(roofline, shape, engine, spread, clients):
    prompt = shape[0]
    r = estimate(
        roofline,
        *shape,
        clients,
        cached_prefix_len=[0, prompt // 8, prompt // 4, prompt // 2, 3 * prompt // 4, prompt - 1],
        scheduler=SCHEDULERS[engine],
        length_distribution=spread,
        kv_capacity_tokens=BIG,
    )
    assert (np.diff(r.ttft_s) <= 1e-3 * r.ttft_s[:-1]).all()
    assert (np.diff(r.e2e_latency_s) <= 1e-3 * r.e2e_latency_s[:-1]).all()


@given(lengths, engines, spreads, st.integers(1, 8000))
def test_alone_a_request_takes_its_prefill_and_an_overhead(roofline, shape, engine, spread, budget):
    prompt, output = shape
    scheduler = replace(SCHEDULERS[engine], max_batch_tokens=budget)
    r = estimate(roofline, prompt, output, 1, scheduler=scheduler, length_distribution=spread, kv_capacity_tokens=BIG)
    if spread == "uniform":
        return  # the mean length is no whole number
    piece = budget if scheduler.chunks else prompt
    prefill = 0.0
    for start in range(0, prompt, piece):
        new = min(piece, prompt - start)
        prefill += float(
            roofline.step_time_scalar(prefill_batch=1, prefill_new_tokens=new, prefill_context=start)
        ) + float(scheduler.launch_s(new, 32))
    assert float(r.ttft_s) == pytest.approx(scheduler.request_overhead_s + prefill, rel=0.02)


def test_values_of_one_request(kernels):
    r = estimate(kernels, 1000, 101, 1, kv_capacity_tokens=BIG)
    assert float(r.tpot_s) == pytest.approx(kernels.step_time_scalar(1, 1050), rel=1e-3)
    assert float(r.requests_per_s) == pytest.approx(1 / float(r.e2e_latency_s))
    assert r.limit_names == ["load"] and len(r) == 1


def test_a_pipeline_and_attention_ranks_are_engines_side_by_side():
    one = StepEvaluator(small_model(), "h100_sxm", cost="constant_mfu")
    for degrees in ({"pp_size": 2}, {"dp_size": 2}):
        two = StepEvaluator(small_model(), "h100_sxm", cost="constant_mfu", **degrees)
        double = estimate(two, 1000, 100, [2, 16], kv_capacity_tokens=BIG)
        assert double.requests_per_s[1] > double.requests_per_s[0]
        assert (
            double.tokens_per_s_per_gpu * 2 > estimate(one, 1000, 100, 1, kv_capacity_tokens=BIG).requests_per_s
        ).all()
    alone = estimate(two, 1000, 100, 1, kv_capacity_tokens=BIG)
    assert float(alone.requests_per_s * alone.e2e_latency_s) == pytest.approx(1.0)


@given(lengths, engines, st.floats(0.01, 50.0))
def test_an_open_loop_keeps_littles_law(roofline, shape, engine, rate):
    r = estimate(roofline, *shape, arrival_rate=[rate, 2 * rate], scheduler=SCHEDULERS[engine], kv_capacity_tokens=BIG)
    served = np.isfinite(r.ttft_s)
    npt.assert_allclose(r.concurrency[served], np.array([rate, 2 * rate])[served] * r.e2e_latency_s[served])
    npt.assert_allclose(r.running_batch[served], r.concurrency[served], rtol=0.03)
    assert served[0] >= served[1]
    assert np.isfinite(r.tpot_s).all() and (r.requests_per_s <= np.array([rate, 2 * rate]) * (1 + 1e-12)).all()
    if served.all():
        assert r.e2e_latency_s[1] >= r.e2e_latency_s[0] * (1 - 5e-3)


def test_more_than_can_be_served_has_no_end(kernels):
    r = estimate(kernels, 2000, 500, arrival_rate=[0.5, 1e4])
    assert np.isfinite(r.ttft_s[0]) and np.isinf(r.ttft_s[1]) and np.isinf(r.e2e_latency_s[1])
    assert pytest.approx(float(r.requests_per_s[0])) == 0.5 and r.requests_per_s[1] < 1e4
    assert r.limit[1] != Limit.LOAD


def test_limits_say_what_binds(kernels):
    clients = [4, 400]
    kv = estimate(kernels, 4000, 500, clients, kv_capacity_tokens=60_000)
    assert kv.limit_names == ["load", "kv_cache"] and kv.kv_limited.tolist() == [False, True]
    assert kv.running_batch[1] < 400 and kv.kv_utilization[1] <= 1.0 + 1e-9 and kv.queue_s[1] > 0
    seats = estimate(kernels, 1000, 500, clients, max_num_seqs=16, kv_capacity_tokens=BIG)
    assert seats.limit_names == ["load", "max_num_seqs"] and seats.running_batch[1] == 16
    budget = estimate(kernels, 4000, 20, clients, max_batch_tokens=1024, kv_capacity_tokens=BIG)
    assert budget.limit_names[1] == "token_budget"
    unfit = estimate(kernels, 4000, 500, clients, kv_capacity_tokens=3000)
    assert unfit.limit_names == ["does_not_fit"] * 2 and not unfit.fits.any()
    assert "does_not_fit" in repr(unfit)


def test_a_model_that_does_not_fit_says_so():
    big = StepEvaluator("meta-llama/Llama-3.1-70B", "h100_sxm")
    with pytest.warns(MfuroofWarning, match="tp_size 4 would do|tp_size 2 would do"):
        r = estimate(big, 1000, 100, [1, 8])
    assert np.isnan(r.ttft_s).all() and not r.fits.any()


def test_shapes_broadcast_and_results_are_frozen(kernels):
    r = estimate(kernels, [[128], [1024]], 64, [1, 2, 4], max_batch_tokens=[[512], [8192]])
    assert r.ttft_s.shape == (2, 3) and r.limit.shape == (2, 3) and len(r) == 6
    assert r.bound.shape == (2, 3) and r.source.shape == (2, 3)
    with pytest.raises(ValueError, match="read-only"):
        r.ttft_s[0, 0] = 1.0
    one = estimate(kernels, 1024, 64, 4)
    assert float(one.ttft_s) == r.ttft_s[1, 2] and float(one.tpot_s) == r.tpot_s[1, 2]
    table = r.to_arrow()
    assert table.num_rows == 6 and {"ttft_s", "limit", "bound"} <= set(table.column_names)
    assert "ttft_ms" in repr(r)
    assert len(estimate(kernels, [], 64, 1)) == 0 and "0 configurations" in repr(estimate(kernels, [], 64, 1))


def test_lengths_may_be_means_and_distributions(kernels):
    mean = estimate(kernels, 921.6, 921.6, 32, length_distribution=Lengths(1.0, 0.064))
    drawn = estimate(kernels, 1024, 1024, 32, length_distribution="uniform")
    assert float(mean.tpot_s) == pytest.approx(float(drawn.tpot_s), rel=1e-3)
    assert float(drawn.output_len) == pytest.approx(921.6)
    sampled = estimate(kernels, 1024, 1024, 32, length_distribution=np.linspace(0.8, 1.0, 1001))
    assert float(sampled.ttft_s) == pytest.approx(float(drawn.ttft_s), rel=1e-3)
    uniform = Lengths.uniform()
    assert (uniform.mean_fraction, uniform.variation) == pytest.approx((0.9, 0.2 / math.sqrt(12) / 0.9))
    assert Lengths.of([2, 4]) == Lengths(3.0, 1 / 3)
    for wrong in ([], [0.0], ["a"], [math.nan]):
        with pytest.raises(InputError):
            Lengths.of(wrong)
    with pytest.raises(InputError):
        Lengths.uniform(1.0, 0.5)
    with pytest.raises(InputError):
        Lengths(0.0, -1.0)
    with pytest.raises(UnknownNameError, match="uniform"):
        estimate(kernels, 10, 10, 1, length_distribution="unifrm")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"input_len": 0, "output_len": 1, "concurrency": 1}, "input_len"),
        ({"input_len": 10, "output_len": math.nan, "concurrency": 1}, "output_len"),
        ({"input_len": 10, "output_len": 1, "concurrency": 0.5}, "concurrency"),
        ({"input_len": 10, "output_len": 1}, "neither"),
        ({"input_len": 10, "output_len": 1, "concurrency": 1, "arrival_rate": 1}, "both"),
        ({"input_len": 10, "output_len": 1, "arrival_rate": [1.0, 0.0]}, r"arrival_rate\[1\]"),
        ({"input_len": "x", "output_len": 1, "concurrency": 1}, "input_len"),
        ({"input_len": [1, 2], "output_len": [1, 2, 3], "concurrency": 1}, "broadcast"),
        ({"input_len": 10, "output_len": 1, "concurrency": 1, "requests_per_client": 0.5}, "requests_per_client"),
        ({"input_len": 10, "output_len": 1, "concurrency": 1, "max_num_seqs": 0}, "max_num_seqs"),
        ({"input_len": 10, "output_len": 1, "concurrency": 1, "kv_capacity_tokens": -1}, "kv_capacity_tokens"),
        ({"input_len": 10, "output_len": 1, "concurrency": 1, "cached_prefix_len": -1}, "cached_prefix_len"),
    ],
)
def test_bad_arguments_are_named(kernels, arguments, text):
    with pytest.raises(InputError, match=text):
        estimate(kernels, **arguments)


def test_the_burst_of_a_benchmark_is_a_part_of_its_mean(kernels):
    burst, ten, steady = (
        float(estimate(kernels, 2000, 300, 64, requests_per_client=w, length_distribution="uniform").ttft_s)
        for w in (1, 10, math.inf)
    )
    assert burst > ten > steady
    assert ten == pytest.approx(0.1 * burst + 0.9 * steady)


@given(st.integers(1, 8), st.floats(0, 1), st.integers(1, 64))
def test_speculation_pays_where_guesses_are_right(kernels, tokens, acceptance, clients):
    plain = estimate(kernels, 1000, 200, clients, kv_capacity_tokens=BIG)
    speculation = Speculation(tokens, acceptance)
    r = estimate(kernels, 1000, 200, clients, kv_capacity_tokens=BIG, speculation=speculation)
    expected = sum(acceptance**i for i in range(tokens + 1))
    assert speculation.tokens_per_step == pytest.approx(expected)
    assert 1.0 <= expected <= tokens + 1
    npt.assert_allclose(r.itl_s, r.tpot_s * expected)
    better = estimate(
        kernels, 1000, 200, clients, kv_capacity_tokens=BIG, speculation=Speculation(tokens, min(acceptance + 0.1, 1))
    )
    assert float(better.tpot_s) <= float(r.tpot_s) * (1 + 1e-9)
    if acceptance == 0:
        assert float(r.tpot_s) >= float(plain.tpot_s)
    assert float(r.tpot_s) >= float(plain.tpot_s) / (tokens + 1)


def test_a_draft_model_costs_its_steps(kernels):
    free = estimate(kernels, 1000, 200, 8, speculation=Speculation(3, 0.7))
    heads = estimate(kernels, 1000, 200, 8, speculation=Speculation(3, 0.7, draft_step_fraction=0.1))
    model = estimate(kernels, 1000, 200, 8, speculation=Speculation(3, 0.7, draft=kernels))
    assert float(free.tpot_s) < float(heads.tpot_s) < float(model.tpot_s)
    shape = StepBatch.uniform(decode_batch=8, decode_context=1100)
    one_guess = float(kernels.step_time(shape)[0])
    accepted = Speculation(3, 0.7).tokens_per_step
    assert float(model.tpot_s - free.tpot_s) == pytest.approx(3 * one_guess / accepted, rel=0.05)
    with pytest.raises(InputError, match="draft_step_fraction"):
        Speculation(3, 0.7, draft=kernels, draft_step_fraction=0.1)
    with pytest.raises(InputError) as caught:
        Speculation(0, 1.5)
    assert len(caught.value.problems) == 2


@given(st.integers(64, 6000), st.integers(2, 1000), st.integers(1, 300), st.integers(1, 4), st.integers(1, 4))
@settings(max_examples=30)
def test_two_pools_keep_littles_law(kernels, prompt, output, clients, prefills, decodes):
    r = disaggregated(
        kernels, kernels, prompt, output, clients, num_prefill=prefills, num_decode=decodes, kv_capacity_tokens=200_000
    )
    assert float(r.requests_per_s * r.e2e_latency_s) == pytest.approx(clients, rel=1e-3)
    assert float(r.requests_per_s) <= min(float(r.prefill_limit_per_s), float(r.decode_limit_per_s)) * (1 + 1e-9)
    assert float(r.ttft_s) >= float(r.prefill_s + r.transfer_s)
    assert float(r.prefill_utilization) <= 1.0
    more = disaggregated(
        kernels,
        kernels,
        prompt,
        output,
        clients,
        num_prefill=prefills + 1,
        num_decode=decodes,
        kv_capacity_tokens=200_000,
    )
    assert float(more.e2e_latency_s) <= float(r.e2e_latency_s) * (1 + 2e-3)
    swift = disaggregated(
        kernels,
        kernels,
        prompt,
        output,
        clients,
        num_prefill=prefills,
        num_decode=decodes,
        kv_capacity_tokens=200_000,
        link_bytes_per_s=math.inf,
    )
    assert float(swift.transfer_s) == 0.0
    assert float(swift.requests_per_s) >= float(r.requests_per_s) * (1 - 2e-3)


def test_pools_alone_and_full(kernels):
    alone = disaggregated(kernels, kernels, 2000, 100, 1, link_bytes_per_s=1e10, link_latency_s=0.001)
    assert float(alone.prefill_wait_s) == 0.0
    assert float(alone.transfer_s) == pytest.approx(0.001 + 2000 * kernels.model.kv_bytes_per_token / 1e10)
    assert float(alone.balance * alone.prefill_limit_per_s) == pytest.approx(float(alone.decode_limit_per_s))
    open_loop = disaggregated(kernels, kernels, 2000, 100, arrival_rate=[1.0, 1e4])
    assert np.isfinite(open_loop.ttft_s[0]) and np.isinf(open_loop.ttft_s[1])
    assert open_loop.to_arrow().num_rows == 2 and len(open_loop) == 2
    unfit = disaggregated(kernels, kernels, 2000, 100, 4, kv_capacity_tokens=1000)
    assert math.isnan(float(unfit.ttft_s))


def test_pools_are_checked(kernels, roofline):
    with pytest.raises(InputError, match="the model of the prefill pool"):
        disaggregated(kernels, roofline, 100, 10, 1)
    with pytest.raises(InputError, match="output_len"):
        disaggregated(kernels, kernels, 100, 1, 1)
    with pytest.raises(InputError, match="num_prefill"):
        disaggregated(kernels, kernels, 100, 10, 1, num_prefill=0)
    offline = replace(kernels.hardware, network_bytes_per_s=0.0)
    island = StepEvaluator(kernels.model, offline, tables=None, cost="constant_mfu")
    with pytest.raises(InputError, match="link_bytes_per_s"):
        disaggregated(island, island, 100, 10, 1)


def test_schedulers_differ_where_engines_do(kernels):
    steady = {"requests_per_client": math.inf, "kv_capacity_tokens": BIG}
    together, spread = (
        estimate(kernels, 1000, 300, 64, length_distribution=d, scheduler=SCHEDULERS["sglang"], **steady)
        for d in ("fixed", "uniform")
    )
    assert float(together.ttft_s) > 5 * float(spread.ttft_s)  # equal requests of a prefill-first engine come in bursts
    assert float(together.tpot_s) < float(spread.tpot_s) * 1.1
    ahead, direct = (
        estimate(kernels, 1000, 300, 64, length_distribution="uniform", scheduler=Scheduler(lag_steps=lag), **steady)
        for lag in (2, 1)
    )
    assert float(ahead.ttft_s) > float(direct.ttft_s)


def test_a_hundred_thousand_configurations_take_about_a_second(kernels):
    rng, n = np.random.default_rng(0), 100_000
    shapes = rng.integers(100, 8000, n), rng.integers(16, 2000, n), rng.integers(1, 200, n)
    estimate(kernels, *(s[:10] for s in shapes))
    start = time.perf_counter()
    estimate(kernels, *shapes)
    assert time.perf_counter() - start < 3.0  # a third of that on an idle machine
