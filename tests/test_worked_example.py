"""Published step times of NVIDIA AIConfigurator 0.12 (H100, vLLM), which its preset reproduces from the same tables.

Values in milliseconds as that engine prints them, to 1e-4 or the digits printed.
"""

from __future__ import annotations

import naive_step
import numpy as np
import pytest
from step_strategies import evaluator

import mfuroof as mr
from mfuroof.batch import StepBatch

DECODE = StepBatch.uniform(decode_batch=32, decode_context=2047)  # and one new token: KV length 2048
PREFILL = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=2048)
LLAMA_8B = {
    "embedding": (0.0031, 0.0093),
    "norm": (0.1085 + 0.1085, 0.8973 + 0.8973),
    "qkv_gemm": (0.7599, 4.1160),
    "o_gemm": (0.5282, 2.7739),
    "gate_up_gemm": (2.9324, 19.5455),
    "activation": (0.1289, 2.1994),
    "down_gemm": (1.4279, 9.4266),
    "lm_head": (0.4075, 0.3718),
    "attention_prefill": (0.0, 3.2708),
    "attention_decode": (3.2264, 0.0),
}


def ms(value):
    """As printed: four decimals, or 1e-4 of the value; a sum of two printed numbers may be off by twice as much."""
    return pytest.approx(value, rel=1e-4, abs=1.01e-4)


@pytest.mark.parametrize(("phase", "batch", "total"), [(0, DECODE, 9.6313), (1, PREFILL, 43.5079)])
def test_llama_8b(phase, batch, total):
    result = evaluator("8B on H100", "aic").evaluate(batch)
    assert result.step_time_s[0] * 1e3 == pytest.approx(total, abs=6e-5)
    assert {k: v[0] * 1e3 for k, v in result.op_time_s.items()} == {k: ms(v[phase]) for k, v in LLAMA_8B.items()}


def fp8_70b():
    """FP8 weights, 16-bit cache."""
    params = mr.CostParams.aiconfigurator()
    return mr.StepEvaluator("meta-llama/Meta-Llama-3.1-70B", "h100_sxm", tp_size=4, params=params, weight_dtype="fp8")


@pytest.mark.parametrize(("batch", "total"), [(DECODE, 14.3156), (PREFILL, 110.8036)])
def test_llama_70b_fp8_on_four_gpus(batch, total):
    assert fp8_70b().step_time(batch)[0] * 1e3 == pytest.approx(total, abs=6e-5)


def test_llama_70b_communication_and_elementwise_share():
    parts = {k: v[0] * 1e3 for k, v in fp8_70b().evaluate(PREFILL).op_time_s.items()}
    assert parts["all_reduce"] == pytest.approx(30.8, abs=0.05)
    assert parts["norm"] + parts["activation"] + parts["embedding"] == pytest.approx(11.4, abs=0.05)


def test_decode_is_a_mean_of_five_kv_lengths():
    """A single lookup gives 9.6292, and each of the five lengths is in the mean once."""
    ev = evaluator("8B on H100", "aic")
    mean = ev.evaluate(DECODE)
    grid = sum(x.count * x.decode.time_s for x in ev.bound.work.run.attention).tolist()
    points = [naive_step.decode(grid, 32, kv) for kv in (1843, 1945, 2047, 2149, 2252)]
    assert mean.attention_decode_s[0] == pytest.approx(np.mean(points), rel=1e-12)
    single = mean.step_time_s[0] - mean.attention_decode_s[0] + naive_step.decode(grid, 32, 2048)
    assert single * 1e3 == pytest.approx(9.6292, abs=6e-5)


def test_prefill_attention_blends_the_root_of_the_time():
    """Between 1,024 and 2,048 tokens, as at them; the constant kernels beside it take 13.21 us a layer."""
    ev = evaluator("8B on H100", "aic")
    batch = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=[1024, 1536, 2048])
    low, middle, high = np.sqrt(ev.evaluate(batch).attention_prefill_s)
    assert middle == pytest.approx((low + high) / 2, rel=1e-9)
    nothing = ev.evaluate(StepBatch.uniform(prefill_batch=1, prefill_new_tokens=1)).attention_prefill_s[0]
    assert 32 * 13.21e-6 < nothing < 32 * 30e-6


def test_only_the_preset_is_raw():
    """The repaired curves differ, so the published numbers come from the preset and not by chance."""
    raw, repaired = evaluator("8B on H100", "aic"), mr.CostParams.aiconfigurator()
    assert raw.bound.repairs == ()
    assert not repaired.monotone
    own = evaluator("8B on H100").step_time(DECODE)[0] * 1e3
    assert abs(own - 9.6313) > 0.05
