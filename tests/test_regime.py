"""Regimes against closed forms, gains of formats, workloads by formula, sizes and risks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof import StepBatch, StepEvaluator, get_model
from mfuroof.errors import InputError, UnknownNameError
from mfuroof.hardware import get_hardware
from mfuroof.precision import FORMATS, format_of
from mfuroof.quant import (
    Conventions,
    Workload,
    compress,
    crossover_batch,
    format_gains,
    gemm_intensity,
    gemm_ridge_tokens,
    generation,
    prune_risk,
    quantise_risk,
    regimes,
    roofline,
)
from mfuroof.quant.gain import FORMATS_COMPARED
from mfuroof.quant.risk import JUDGEMENT, QUANTISATION_RISKS

LLAMA = "meta-llama/Llama-3.1-8B"


@cache
def evaluator(model=LLAMA, gpu="h100_sxm", **how):
    return StepEvaluator(model, gpu, **dict(how))


# ---------------------------------------------------------------- regimes


@pytest.mark.parametrize(
    ("weight_dtype", "op", "n", "k"),
    [
        (None, "down_gemm", 4096, 14336),
        (None, "gate_up_gemm", 28672, 4096),
        (None, "o_gemm", 4096, 4096),
        ("fp8", "down_gemm", 4096, 14336),
        ("int4_wo", "down_gemm", 4096, 14336),
    ],
)
def test_the_boundary_of_a_product_is_where_the_closed_form_has_it(weight_dtype, op, n, k):
    e = evaluator(weight_dtype=weight_dtype)
    fmt = format_of(weight_dtype or "bf16")
    ridge = e.hardware.ridge_point(fmt.name)
    boundary = gemm_ridge_tokens(ridge, n, k, fmt.bytes_per_weight)
    tokens = np.array([int(boundary * 0.9), int(boundary), int(np.ceil(boundary)), int(boundary * 1.1)])
    r = regimes(e, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=tokens))
    npt.assert_allclose(r.arithmetic_intensity[op], gemm_intensity(tokens, n, k, fmt.bytes_per_weight), rtol=1e-2)
    assert r.op[op][0] == "memory" and r.op[op][3] == "compute" and r.ridge_point[op] == ridge


@given(st.floats(1, 2000), st.integers(64, 30000), st.integers(64, 30000), st.floats(0.3, 4), st.floats(0.5, 2))
def test_ridge_tokens_invert_the_intensity(ridge, n, k, weight, entering):
    tokens = gemm_ridge_tokens(ridge, n, k, weight, entering, 2.0)
    if np.isfinite(tokens):
        npt.assert_allclose(gemm_intensity(tokens, n, k, weight, entering, 2.0), ridge, rtol=1e-6)
    else:
        assert gemm_intensity(1e12, n, k, weight, entering, 2.0) <= ridge * (1 + 1e-6)


def test_steps_belong_to_their_largest_resource():
    e = evaluator()
    batch = StepBatch.uniform(decode_batch=[1, 256, 0, 0], decode_context=1000, prefill_batch=[0, 0, 1, 0],
                              prefill_new_tokens=4096)  # fmt: skip
    r = regimes(e, batch)
    assert r.step[:3].tolist() == ["memory", "memory", "compute"]
    npt.assert_allclose(np.sum(list(r.share.values()), axis=0)[:3], 1.0)
    assert r.op["overhead"][0] == "overhead" and r.op["attention_decode"][0] == "memory"
    assert r.op["attention_decode"][2] == "" and "memory" in repr(r) and len(r.to_rows(0)) > 5
    total = e.evaluate(batch)
    flops, moved = (sum(v[0] for v in part.values()) for part in (total.op_flops, total.op_bytes))
    npt.assert_allclose(r.arithmetic_intensity["step"][0], flops / moved)


def test_communication_and_experts():
    r = regimes(evaluator("Qwen/Qwen3-30B-A3B", "h200_sxm", tp_size=2, moe_dtype="fp8"), StepBatch.uniform(8, 100))
    device = get_hardware("h200_sxm")
    assert r.op["all_reduce"][0] == "comm" and r.ridge_point["experts"] == device.ridge_point("fp8")
    assert r.ridge_point["qkv_gemm"] == device.ridge_point("bf16")


@pytest.mark.parametrize("cost", ["constant_mfu", "mfu_table"])
def test_other_costs(cost):
    r = regimes(evaluator(cost=cost), StepBatch.uniform(decode_batch=[1], decode_context=100))
    assert r.step[0] == "memory" and set(r.op) == {"comm", "overhead"} and r.op["comm"][0] == ""
    assert 0 < r.arithmetic_intensity["step"][0] < r.ridge_point["step"]


# ---------------------------------------------------------------- gains


def test_gains_shrink_with_batch_and_context():
    gains = format_gains(LLAMA, "h100_sxm", batch_size=[1, 64, 512], context=[128, 4096])
    assert set(gains.speedup) == set(FORMATS_COMPARED) and gains.base_s.shape == (3, 2)
    four = gains.speedup["int4_wo"]
    assert (np.diff(four, axis=0) < 0).all() and (four[:2, 1] < four[:2, 0]).all()
    assert four[0, 0] < 4 and four[2, 0] < 1.05  # no free lunch: weight-only gains vanish where compute binds
    assert gains.native == {"int8": True, "fp8": True, "int4_wo": False, "nvfp4": False}
    assert gains.speedup["fp8"][2, 0] > four[2, 0]  # where compute binds, only a faster rate helps


def test_expanding_weights_costs_only_where_compute_binds():
    free = format_gains(LLAMA, "h100_sxm", ["int4_wo", "fp8"], [1, 1024], dequantisation=0.0)
    dear = format_gains(LLAMA, "h100_sxm", ["int4_wo", "fp8"], [1, 1024], dequantisation=0.2)
    npt.assert_array_equal(free.speedup["fp8"], dear.speedup["fp8"])
    assert free.speedup["int4_wo"][0, 0] == dear.speedup["int4_wo"][0, 0]
    assert dear.speedup["int4_wo"][1, 0] < free.speedup["int4_wo"][1, 0]


@pytest.mark.parametrize("factor", [2.0, 1.5])
def test_the_crossover_is_where_the_gain_falls_below(factor):
    found = crossover_batch(LLAMA, "h100_sxm", "int4_wo", factor, limit=256)
    assert found.batch_size is not None and found.batch_size > 1 and found.at_one > factor and found.lasting
    around = format_gains(LLAMA, "h100_sxm", ["int4_wo"], [found.batch_size - 1, found.batch_size]).speedup["int4_wo"]
    assert around[0, 0] >= factor > around[1, 0]


def test_crossovers_that_are_not_there():
    assert crossover_batch(LLAMA, "h100_sxm", "int4_wo", 0.1, limit=16).batch_size is None
    assert crossover_batch(LLAMA, "h100_sxm", "int4_wo", 4.0, limit=16).batch_size == 1


def test_gains_start_from_16_bits():
    with pytest.raises(InputError, match="not quantised"):
        format_gains("Qwen/Qwen3-32B-FP8", "h100_sxm")
    with pytest.raises(InputError):
        crossover_batch(LLAMA, "h100_sxm", speedup=0)
    with pytest.raises(InputError):
        format_gains(LLAMA, "h100_sxm", dequantisation=-1)


# ---------------------------------------------------------------- workloads, another tool's conventions

RESNET = Workload(flops=4.1e9, weight_params=25.6e6, num_layers=50)


@pytest.mark.parametrize(("dtype", "ms"), [("fp16", 7.243), ("int8", 3.879), ("int4_wo", 7.243)])
def test_resnet_as_published(dtype, ms):
    r = roofline(RESNET, "a100_sxm", 256, dtype, Conventions.mlsysim())
    assert round(float(r.time_s) * 1e3, 3) == ms and r.bound == "compute"


@pytest.mark.parametrize(("dtype", "ms"), [("fp16", 13.971), ("int8", 7.243)])
def test_resnet_with_two_flops_a_product(dtype, ms):
    work = replace(RESNET, flops=8.2e9)
    assert round(float(roofline(work, "a100_sxm", 256, dtype, Conventions.mlsysim()).time_s) * 1e3, 3) == ms


@pytest.mark.parametrize(
    ("dtype", "ttft_ms", "itl_ms"), [("fp16", 70.97, 5.194), ("int8", 35.47, 2.757), ("int4_wo", 70.97, 1.539)]
)
def test_token_generation_as_published(dtype, ttft_ms, itl_ms):
    device = replace(get_hardware("h100_sxm"), peak_flops_per_s={"bf16": 989e12, "fp16": 989e12, "int8": 1979e12})
    g = generation(LLAMA, device, 1, 2048, dtype, Conventions.mlsysim(dispatch_s=10e-6), bits="nominal")
    assert float(g.prefill.time_s) * 1e3 == pytest.approx(ttft_ms, abs=0.011)
    assert round(float(g.decode.time_s) * 1e3, 3) == itl_ms


def test_their_gain_rises_with_the_batch_and_ours_falls():
    batch = np.array([1, 512])

    def gain(how):
        wide, narrow = (generation(LLAMA, "h100_sxm", batch, 2048, d, how, bits="nominal") for d in ("fp16", "int4_wo"))
        return wide.decode.time_s / narrow.decode.time_s

    npt.assert_allclose(gain(Conventions.mlsysim()), [3.38, 3.92], atol=0.01)
    ours = gain(Conventions())
    assert ours[0] > 3 and ours[1] < 1.2


@given(st.integers(1, 5000), st.sampled_from(["bf16", "fp8", "int8", "int4_wo", "nvfp4"]))
def test_a_workload_is_a_roofline(batch, dtype):
    device = get_hardware("h100_sxm")
    work = Workload(1e9, 1e8, bytes_per_sample=1e6)
    r = roofline(work, device, batch, dtype)
    compute = batch * 1e9 / device.peak(dtype)
    memory = (1e8 * format_of(dtype).bytes_per_weight + batch * 1e6) / device.hbm_bytes_per_s
    npt.assert_allclose(r.time_s, max(compute, memory))
    assert (r.arithmetic_intensity > r.ridge_point) == (r.bound == "compute") or compute == memory
    assert work.training().flops == 3e9


@pytest.mark.parametrize("bad", [-1, float("nan"), "x", [1, None]])
def test_bad_batches(bad):
    with pytest.raises(InputError):
        roofline(RESNET, "a100_sxm", bad)


def test_bad_conventions():
    with pytest.raises(InputError):
        Conventions(compute_efficiency=0)
    with pytest.raises(InputError):
        Workload(-1, 0)
    with pytest.raises(UnknownNameError):
        roofline(RESNET, "a100_sxm", 1, "fp9")


# ---------------------------------------------------------------- size and risk


@pytest.mark.parametrize(
    ("dtype", "sparsity", "ratio", "loss"),
    [
        ("fp16", 0.0, 2, 0.0),
        ("int8", 0.0, 4, 0.002),
        ("int4_wo", 0.0, 8, 0.025),
        ("int2_wo", 0.0, 16, 0.05),
        ("fp32", 0.5, 2, 0.001),
        ("fp32", 0.75, 4, 0.0448),
        ("fp32", 0.9, 10, 0.0605),
    ],
)
def test_compression_as_published(dtype, sparsity, ratio, loss):
    c = compress(LLAMA, dtype, sparsity, convention="mlsysim")
    assert c.ratio == pytest.approx(ratio) and c.risk.high == pytest.approx(loss, abs=5e-5)
    assert c.memory_saved == pytest.approx(1 - 1 / ratio) and c.gemm_speedup_limit == 1.0


def test_exact_sizes_are_those_of_the_model():
    c = compress(LLAMA, "int4_wo")
    model = get_model("meta-llama/Meta-Llama-3.1-8B")
    assert c.weight_bytes == model.with_precision(weight_dtype="int4_wo").weight_bytes
    assert c.base_bytes == model.weight_bytes and 2.5 < c.ratio < 4  # embeddings and LM head stay 16-bit
    assert compress(LLAMA).ratio == 1.0 and compress(LLAMA, base="fp32").ratio == pytest.approx(2.0)


@given(st.floats(0.01, 0.95), st.sampled_from(["unstructured", "structured", "n:m"]))
@settings(max_examples=30)
def test_more_pruning_is_smaller_and_riskier(sparsity, pattern):
    some, more = (compress(LLAMA, "bf16", s, pattern) for s in (sparsity, min(sparsity * 1.04, 0.99)))
    assert more.weight_bytes < some.weight_bytes and more.risk.high >= some.risk.high
    for c in (some, more):
        assert 0 <= c.risk.low <= c.risk.high <= 1 and c.risk.source and "not a prediction" in c.risk.label
        assert c.gemm_speedup_limit >= 1


def test_speed_limits_of_patterns():
    assert compress(LLAMA, sparsity=0.5, pattern="n:m").gemm_speedup_limit == 2.0
    assert compress(LLAMA, sparsity=0.9).gemm_speedup_limit == 1.0
    assert compress(LLAMA, sparsity=0.75, pattern="structured").gemm_speedup_limit == 4.0


def test_every_format_but_trained_ones_has_a_risk():
    for name in FORMATS:
        if name in ("ternary", "codebook"):
            with pytest.raises(InputError):
                quantise_risk(name)
        else:
            assert quantise_risk(name) in QUANTISATION_RISKS.values() and quantise_risk(name).source


def test_every_figure_is_published_or_said_to_be_judgement():
    pruned = [prune_risk(0.4, pattern) for pattern in ("unstructured", "structured", "n:m")]
    ranges = [*QUANTISATION_RISKS.values(), *pruned]
    published = [r for r in ranges if not r.source.endswith(JUDGEMENT)]
    assert published == [QUANTISATION_RISKS["bf16"], QUANTISATION_RISKS["int8"]]
    for r in ranges:
        assert "rule of thumb, not a prediction" in str(r) and r.source in str(r)
    scattered, rows, four = (r.high for r in pruned)
    assert scattered < four < rows  # the more a pattern is bound, the dearer it is


@pytest.mark.parametrize("bad", [-0.1, 1.0, 2, float("nan"), "half"])
def test_bad_sparsity(bad):
    with pytest.raises(InputError):
        prune_risk(bad)
    with pytest.raises(InputError):
        compress(LLAMA, sparsity=bad)


def test_bad_pattern():
    with pytest.raises(UnknownNameError):
        prune_risk(0.5, "random")
