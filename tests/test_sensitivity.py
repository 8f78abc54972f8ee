"""Laws of elasticities: shares in [0, 1] that add up, zero where a resource has no say, exact on both sides."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof import CostParams, StepBatch, StepEvaluator
from mfuroof.engines import engine_profile
from mfuroof.errors import InputError
from mfuroof.hardware import get_hardware
from mfuroof.sensitivity import SHAPES, elasticities, load_elasticities, sensitivity, what_if, where_to_invest

CASES = {
    "dense": ("meta-llama/Llama-3.1-8B", "h100_sxm", {}),
    "ranks": ("meta-llama/Llama-3.1-70B", "h100_sxm", {"tp_size": 4}),
    "experts": ("Qwen/Qwen3-30B-A3B", "h200_sxm", {"tp_size": 2}),
    "relative": ("meta-llama/Llama-3.1-8B", "l4", {}),
    "formula": ("meta-llama/Llama-3.1-8B", "h100_sxm", {"cost": "constant_mfu"}),
}
BATCH = StepBatch.uniform(
    decode_batch=[1, 32, 256, 0, 64, 0], decode_context=2047, prefill_batch=[0, 0, 0, 1, 1, 0], prefill_new_tokens=2000
)


@cache
def evaluator(case):
    model, gpu, how = CASES[case]
    return StepEvaluator(model, gpu, **how)


@pytest.mark.parametrize("case", CASES)
def test_shares_add_up(case):
    for side in ("slower", "faster"):
        s = sensitivity(evaluator(case), BATCH, side=side)
        for name, share in s.elasticity.items():
            assert (share >= 0).all() and (share <= 1 + 1e-9).all(), name
        assert (s.fixed >= -1e-6).all() and (s.fixed <= 1).all()
        total = np.sum(list(s.elasticity.values()), axis=0) + s.fixed
        npt.assert_allclose(total[:-1], 1.0, atol=1e-9)
        assert total[-1] == 0.0  # an empty step


@pytest.mark.parametrize("case", CASES)
def test_resources_slowed_together_cost_the_sum_of_each(case):
    """Not by construction: the whole device is slowed at once."""
    e = evaluator(case)
    s = sensitivity(e, BATCH)
    resources = np.sum([v for k, v in s.elasticity.items() if k != "overhead"], axis=0)
    h, device = 2.0**-16, e.hardware
    links = {k: getattr(device, k) / (1 + h) for k in ("nvlink_bytes_per_s", "network_bytes_per_s", "pcie_bytes_per_s")}
    slower = replace(
        device,
        peak_flops_per_s={k: v / (1 + h) for k, v in device.peak_flops_per_s.items()},
        hbm_bytes_per_s=device.hbm_bytes_per_s / (1 + h),
        **links,
    )
    time = StepEvaluator(e.model, slower, **CASES[case][2]).step_time(BATCH)
    before = np.where(s.step_time_s > 0, s.step_time_s, 1.0)
    npt.assert_allclose((time - s.step_time_s) / h / before, resources, atol=1e-6)


def test_resources_and_overheads_and_launches_are_all_there_is():
    """What is fixed in a dense model on one GPU is the launches of elementwise kernels."""
    e = evaluator("dense")
    s = sensitivity(e, BATCH)
    launch = e.params.elementwise_launch_s
    more = StepEvaluator(e.model, e.hardware, params=CostParams(elementwise_launch_s=launch * 2)).step_time(BATCH)
    expected = np.where(s.step_time_s > 0, (more - s.step_time_s) / np.where(s.step_time_s > 0, s.step_time_s, 1), 0)
    npt.assert_allclose(s.fixed, expected, atol=3e-3)


def test_the_formula_cost_is_one_resource_or_the_other():
    s = sensitivity(evaluator("formula"), BATCH)
    memory = s.elasticity["hbm"][:-1]
    npt.assert_allclose(memory, [1, 1, 1, 0, 0], atol=1e-9)
    npt.assert_allclose(s.elasticity["peak_bf16"][:-1], 1 - memory, atol=1e-9)


def test_memory_bound_steps_have_no_interest_in_flops():
    s = sensitivity(evaluator("dense"), BATCH)
    npt.assert_array_equal(s.elasticity["peak_bf16"][:2], 0.0)
    npt.assert_array_equal(s.elasticity["peak_fp8"], 0.0)
    npt.assert_array_equal(s.elasticity["network"], 0.0)


@given(
    st.sampled_from(["dense", "experts", "formula"]),
    st.integers(0, 300),
    st.integers(0, 9000),
    st.integers(0, 3),
    st.integers(0, 3000),
)
@settings(max_examples=25)
def test_shares_are_shares_at_any_shape(case, decode, context, prefill, tokens):
    batch = StepBatch.uniform(decode, context, prefill, tokens)
    s = sensitivity(evaluator(case), batch)
    for share in s.elasticity.values():
        assert -1e-9 <= share[0] <= 1 + 1e-9


@pytest.mark.parametrize("case", ["dense", "formula"])
@given(factor=st.floats(0.5, 2.0))
@settings(max_examples=15)
def test_no_resource_matters_more_than_all_of_it(case, factor):
    """A time moves with the cost of a resource, and never by more than that cost."""
    e = evaluator(case)
    before, after = e.step_time(BATCH)[:-1], what_if(e, hbm=factor).step_time(BATCH)[:-1]
    change = after / before - 1
    assert (change * np.sign(1 / factor - 1) >= -1e-12).all()
    assert (np.abs(change) <= np.abs(1 / factor - 1) + 1e-9).all()


def test_slopes_predict_small_changes():
    e = evaluator("ranks")
    s = sensitivity(e, BATCH)
    for name in ("hbm", "peak_bf16", "nvlink"):
        after = what_if(e, **{name: 1 / 1.001}).step_time(BATCH)
        npt.assert_allclose(after[:-1] / s.step_time_s[:-1] - 1, 1e-3 * s.elasticity[name][:-1], atol=3e-6)


def test_marginal_times_are_differences():
    e = evaluator("dense")
    s = sensitivity(e, BATCH)
    more = StepBatch.uniform(
        decode_batch=[2, 33, 257, 1, 65, 1], decode_context=2047, prefill_batch=[0, 0, 0, 1, 1, 0],
        prefill_new_tokens=2000,
    )  # fmt: skip
    npt.assert_array_equal(s.marginal_s["decode_batch"], e.step_time(more) - e.step_time(BATCH))
    assert set(s.load) == set(SHAPES) and (s.marginal_s["decode_context"] >= 0).all()
    ragged = StepBatch.ragged(decode=[[100, 200], [300]])
    assert sensitivity(e, ragged).load == {}


def test_another_device_with_the_same_utilisation():
    e = evaluator("dense")
    held, own = what_if(e, "h200_sxm"), what_if(e, "h200_sxm", hold_utilisation=False)
    assert held.hardware.tables == "h100_sxm" and own.hardware == get_hardware("h200_sxm")
    one = StepBatch.uniform(decode_batch=1, decode_context=2047)
    ratio = get_hardware("h200_sxm").hbm_bytes_per_s / e.hardware.hbm_bytes_per_s
    speedup = (e.step_time(one) / held.step_time(one))[0]
    assert 1.2 < speedup < ratio
    npt.assert_array_equal(what_if(e).step_time(BATCH), e.step_time(BATCH))


def test_where_to_invest_is_ranked_by_what_is_saved():
    table = where_to_invest(evaluator("ranks"), BATCH, 0.2)
    saved = [row["saved"] for row in table.to_dict()]
    assert saved == sorted(saved, reverse=True) and "+20%" in repr(table)
    for row in table.to_dict():
        assert -1e-12 <= row["saved"] <= 1 / 6 + 1e-9
        assert row["saved"] <= row["elasticity"] / 6 + 0.02
    decode_only = where_to_invest(evaluator("dense"), BATCH, weights=[1, 1, 0, 0, 0, 0])
    assert decode_only.rows[0][0] == "hbm"


def test_other_times_than_steps():
    e = evaluator("formula")
    share = elasticities(e, lambda x: 3.0 * x.step_time(BATCH))
    s = sensitivity(e, BATCH)
    npt.assert_allclose(share["hbm"], s.elasticity["hbm"], atol=1e-9)


def test_latencies_of_serving():
    from mfuroof.serving import estimate

    e = evaluator("dense")
    for name in ("ttft_s", "tpot_s"):
        shares = elasticities(e, lambda x, name=name: getattr(estimate(x, 1000, 100, concurrency=[1, 8]), name))
        assert shares["hbm"].shape == (2,)
        assert all((v >= -1e-6).all() and (v <= 1).all() for v in shares.values())
        assert (shares["hbm"] + shares["peak_bf16"] > 0.5).all()
    assert shares["hbm"][0] > 0.8  # tokens of a lone request wait for the weights


@pytest.mark.parametrize("case", CASES)
def test_the_overhead_is_that_of_the_engine(case):
    """In the raw curves; where a repair pools token counts, it pools their overheads too."""
    model, gpu, how = CASES[case]
    e, profile = StepEvaluator(model, gpu, params=CostParams(monotone=False), **how), engine_profile("vllm")
    s = sensitivity(e, BATCH)
    emitting = np.array([1, 32, 256, 1, 65])
    seconds = profile.step_overhead_s + emitting * profile.sequence_overhead_s if e.cost == "kernels" else 0 * emitting
    npt.assert_allclose(s.elasticity["overhead"][:-1], seconds / s.step_time_s[:-1], atol=1e-7)
    assert s.elasticity["overhead"][-1] == 0.0


def test_the_overhead_of_a_caller_counts_on_an_old_engine_too():
    params = CostParams(monotone=False, step_overhead_s=1e-3, layer_overhead_s=1e-5, sequence_overhead_s=1e-5)
    e = StepEvaluator("meta-llama/Llama-3.1-8B", "a100_sxm", engine="vllm_2023", params=params)
    s, profile = sensitivity(e, BATCH), engine_profile("vllm_2023")
    per_step = 1e-3 + 32 * 1e-5 + profile.step_overhead_s
    seconds = per_step + np.array([1, 32, 256, 1, 65]) * (1e-5 + profile.sequence_overhead_s)
    npt.assert_allclose(s.elasticity["overhead"][:-1], seconds / s.step_time_s[:-1], atol=1e-7)


def test_latencies_depend_on_their_load():
    from mfuroof.serving import estimate

    e = evaluator("dense")

    def tpot(concurrency, input_len):
        return estimate(e, input_len, 100, concurrency=concurrency).tpot_s

    found = load_elasticities(tpot, concurrency=32, input_len=1000)
    assert found["concurrency"] == pytest.approx(32 * (tpot(33, 1000) / tpot(32, 1000) - 1))
    assert 0 < found["input_len"] < 1 and set(found) == {"concurrency", "input_len"}


def test_where_to_invest_for_a_latency():
    from mfuroof.serving import estimate

    e = evaluator("dense")
    ttft, tpot = (
        where_to_invest(e, lambda x, name=name: getattr(estimate(x, 1000, 100, concurrency=1), name), 0.5)
        for name in ("ttft_s", "tpot_s")
    )
    assert ttft.rows[0][0] == "peak_bf16" and tpot.rows[0][0] == "hbm"
    for table in (ttft, tpot):
        assert sum(e for _, e, _ in table.rows) <= 1 + 1e-6
        assert all(-1e-9 <= saved <= 1 / 3 + 1e-9 for _, _, saved in table.rows)


def test_forms():
    s = sensitivity(evaluator("dense"), BATCH)
    assert next(iter(s.total())) in ("hbm", "peak_bf16") and "fixed" in repr(s)
    table = s.to_arrow()
    assert table.num_rows == 6 and {"hbm", "fixed", "load_decode_batch", "marginal_decode_batch_s"} <= set(
        table.column_names
    )


@pytest.mark.parametrize("bad", [{"hbm": 0}, {"hbm": -1}, {"hbm": "x"}, {"peak_fp4": 2}, {"bandwidth": 2}])
def test_bad_factors(bad):
    with pytest.raises(InputError):
        what_if(evaluator("dense"), **bad)


def test_bad_arguments():
    e = evaluator("dense")
    with pytest.raises(InputError):
        where_to_invest(e, BATCH, 0)
    with pytest.raises(InputError):
        where_to_invest(e, BATCH, weights=[1])
    other = StepEvaluator(e.model, e.hardware, tables=_a100_tables())
    with pytest.raises(InputError, match="tables"):
        sensitivity(other, BATCH)
    assert sensitivity(other, BATCH, tables=_a100_tables()).elasticity["hbm"][0] > 0


@cache
def _a100_tables():
    from mfuroof import load_tables

    return load_tables("a100_sxm", "vllm")
