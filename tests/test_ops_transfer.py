"""What stands in for what was not measured: other head counts, windows, formats, GPUs; and the small kernels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import LLAMA_8B, LLAMA_70B

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.engines import engine_profile
from mfuroof.errors import MfuroofWarning, MissingTableError
from mfuroof.ops import siblings, transfer
from mfuroof.ops.lattice import BATCH_OCTAVES, LENGTH_OCTAVES, decode_grid, prefill_grid
from mfuroof.ops.select import rows
from mfuroof.ops.transfer import AttentionKey, Lattice, between_heads, cut_to_window, find_lattice
from mfuroof.tables.store import load_tables

STEPS = mr.StepBatch.uniform([1, 64, 0, 700], [99, 3000, 0, 20], [0, 2, 1, 0], 300, [0, 50, 0, 0])
ROUNDING = 1e-12


def read_decode(found):
    grid = decode_grid(found["batch_size"], found["kv_len"], found["latency_s"], monotone=True)
    return Lattice(grid.time_s, grid.source, grid.time_s[:, 0])


def read_prefill(found):
    grid = prefill_grid(
        found["batch_size"], found["new_tokens"], found["latency_s"], monotone=True, blend="affine_rate"
    )
    return Lattice(grid.time_s, grid.source, grid.launch_s)


READ = {"attn_decode": read_decode, "attn_prefill": read_prefill}


def left_out(monkeypatch, key, *names):
    """Return tables as if no shape with the values that ``key`` has under ``names`` had been measured."""

    def without(tables, family, **where):
        found = rows(tables, family, **where)
        gone = np.ones(found["latency_s"].size, bool)
        for name in names:
            gone &= found.get(name, np.empty(0)) == getattr(key, name)
        return {name: column[~gone] for name, column in found.items()}

    monkeypatch.setattr(transfer, "rows", without)


# ------------------------------------------------------------------ heads


@pytest.mark.parametrize(
    ("family", "names", "middle", "tail"),
    [
        ("attn_decode", ("num_attention_heads", "num_key_value_heads"), 0.03, 0.12),
        ("attn_prefill", ("num_attention_heads", "num_key_value_heads"), 0.06, 0.20),
        ("attn_decode", ("num_key_value_heads",), 0.06, 0.20),
    ],
)
def test_left_out_heads_are_transferred(monkeypatch, family, names, middle, tail):
    """Measured times of a shape against those its neighbours give: query heads, and all with some number of KV heads.

    The bounds are about twice the medians and 90th percentiles of all H100 shapes (1.1 to 3 %, 6 to 10 %), which noise
    of that size explains; holding the bytes alone misses both by far.
    """
    tables, errors = load_tables("h100_sxm"), []
    for heads, kv_heads in ((16, 2), (32, 8), (8, 1), (40, 4), (12, 4)):
        key = AttentionKey("bf16", "bf16", heads, kv_heads, 128, 0)
        measured = find_lattice(tables, family, key, READ[family])
        with monkeypatch.context() as patch:
            left_out(patch, key, *names)
            found = find_lattice(tables, family, key, READ[family])
        assert (found.source >= Source.SUBSTITUTED).all()
        exact = measured.source == Source.EXACT
        errors.append(np.abs(found.time_s / measured.time_s - 1.0)[exact])
    error = np.concatenate(errors)
    assert np.median(error) < middle
    assert np.quantile(error, 0.9) < tail


def lattice(scale=1.0):
    time = scale * (1.0 + np.outer(np.arange(BATCH_OCTAVES), np.arange(LENGTH_OCTAVES)))
    return Lattice(time, np.zeros(time.shape, np.uint8), time[:, 0])


@given(st.integers(1, 200))
def test_heads_are_mixed_between_neighbours(heads):
    known = np.array([4, 8, 32, 64])
    found = between_heads(known, heads, lambda n: lattice(float(n)))
    if heads in known:
        npt.assert_array_equal(found.time_s, lattice(heads).time_s)
        assert (found.source == Source.EXACT).all()
        return
    assert (found.source == Source.SUBSTITUTED).all()
    above = found.time_s - found.launch_s[:, None]
    per_head = lattice().time_s - lattice().launch_s[:, None]
    npt.assert_allclose(above, per_head * max(heads, 4), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [128, 300, 1024])
def test_a_window_cuts_reads_and_areas(window):
    lengths = 2.0 ** np.arange(LENGTH_OCTAVES)
    straight = np.repeat(lengths[None, :], BATCH_OCTAVES, axis=0)
    codes, none = np.zeros(straight.shape, np.uint8), np.zeros(BATCH_OCTAVES)
    decode = cut_to_window(Lattice(straight, codes, none), window, decode=True)
    npt.assert_allclose(decode.time_s[0], np.minimum(lengths, window), rtol=ROUNDING)
    prefill = cut_to_window(Lattice(straight**2 / 2, codes, none), window, decode=False)
    pairs = [sum(min(i + 1, window) for i in range(int(n))) for n in lengths[:13]]
    npt.assert_allclose(prefill.time_s[0, 5:13], pairs[5:], rtol=0.04)  # the continuous form lacks half a diagonal


def test_other_formats_scale_what_is_read(monkeypatch):
    """A cache of half the bytes halves decode attention above its launch; prefill does not read it."""
    tables = load_tables("h100_sxm")
    wide = AttentionKey("bf16", "bf16", 32, 8, 128, 0)
    narrow = replace(wide, kv_dtype="int4")
    for family, factor in (("attn_decode", 0.5), ("attn_prefill", 1.0)):
        near = find_lattice(tables, family, replace(wide, kv_dtype="fp8"), READ[family])
        found = find_lattice(tables, family, narrow, READ[family])
        launch = near.launch_s[:, None]
        npt.assert_allclose(found.time_s, launch + factor * (near.time_s - launch), rtol=1e-9)
        assert (found.source >= Source.SUBSTITUTED).all()
    assert find_lattice(tables, "attn_decode", narrow, read_decode, transfer=False) is None


# ------------------------------------------------------------------ GPUs


@pytest.mark.parametrize(
    ("gpu", "relative"),
    [("h20", "h100_sxm"), ("h800_sxm", "h100_sxm"), ("a100_pcie", "a100_sxm"), ("gb300", "b300_sxm"), ("l4", "l40s")],
)
def test_the_nearest_measured_gpu_of_the_generation_stands_in(gpu, relative):
    assert siblings.tables_for(mr.get_hardware(gpu), "vllm").gpu == relative


def test_a_generation_without_tables_is_missing():
    with pytest.raises(MissingTableError, match=r"mi300x.*constant_mfu"):
        siblings.tables_for(mr.get_hardware("mi300x"), "vllm")
    empty = siblings.tables_for(mr.get_hardware("mi300x"), "vllm", missing="roofline")
    assert not empty.has("gemm")


def test_an_engine_that_was_not_measured_is_said():
    with pytest.warns(MfuroofWarning, match="sglang was not measured on a100_sxm: the kernels of vllm"):
        assert siblings.tables_for(mr.get_hardware("a100_sxm"), "sglang").engine == "vllm"


@pytest.mark.parametrize("model", [LLAMA_8B, "Qwen/Qwen3-30B-A3B", "deepseek-ai/DeepSeek-V3", "Qwen/Qwen3.5-35B-A3B"])
def test_a_gpu_of_twice_everything_takes_half_the_kernels(model):
    """Utilisation is held kernel by kernel; launches of elementwise kernels, links and overheads stay."""
    real = mr.get_hardware("h200_sxm")
    peaks = {name: 2 * rate for name, rate in real.peak_flops_per_s.items()}
    double = replace(real, peak_flops_per_s=peaks, hbm_bytes_per_s=2 * real.hbm_bytes_per_s)
    here, there = (mr.StepEvaluator(model, g).bound.work.run for g in (real, double))
    for a, b in zip(here.ops, there.ops, strict=True):
        if a.curve.measured:
            npt.assert_allclose(b.curve.time_s, a.curve.time_s / 2, rtol=1e-9, err_msg=a.name)
            assert (b.curve.source >= Source.SUBSTITUTED).all()
    for a, b in zip(here.attention, there.attention, strict=True):
        npt.assert_allclose(b.decode.time_s, a.decode.time_s / 2, rtol=1e-9)
        npt.assert_allclose(b.prefill.time_s, a.prefill.time_s / 2, rtol=1e-9)
        assert (b.decode.source >= Source.SUBSTITUTED).all()


@pytest.mark.parametrize("gpu", ["h20", "h100_nvl", "gb300", "rtx_4090", "l4"])
def test_relatives_price_a_step_and_say_so(gpu):
    found = mr.StepEvaluator(LLAMA_8B, gpu).evaluate(STEPS)
    assert np.isfinite(found.step_time_s).all()
    assert (found.source == Source.SUBSTITUTED).all()


# ------------------------------------------------------------------ small kernels


@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (LLAMA_70B, {"rotary_kv_write": 80}),
        ("Qwen/Qwen3-30B-A3B", {"rotary_kv_write": 48, "qk_norm": 48, "routing": 48}),
        ("deepseek-ai/DeepSeek-V3", {"rotary_kv_write": 61, "routing": 58}),
        ("Qwen/Qwen3.5-35B-A3B", {"rotary_kv_write": 10, "qk_norm": 10, "routing": 40}),
        ("deepseek-ai/DeepSeek-V4-Flash", {"rotary_kv_write": 43, "routing": 43}),
    ],
)
def test_small_kernels_run_once_a_layer(engine, model, expected):
    profile = engine_profile(engine)
    launches = {
        "rotary_kv_write": profile.rotary_kv_kernels, "qk_norm": profile.qk_norm_kernels,
        "routing": profile.routing_kernels,
    }  # fmt: skip
    ops = mr.StepEvaluator(model, "h200_sxm", tp_size=2, engine=engine).bound.work.run.ops
    found = {}
    for op in ops:
        if op.name in launches:
            found[op.name] = found.get(op.name, 0.0) + op.count
            assert op.resource == "memory"
            assert op.bytes_per_count > 0
    assert found == {name: layers * launches[name] for name, layers in expected.items()}



def test_minimax_normalises_over_all_heads():
    """The mean square of queries and keys runs over every rank: one small all-reduce more a layer."""
    ops = mr.StepEvaluator("MiniMaxAI/MiniMax-M2.5", "h200_sxm", tp_size=8).bound.work.run.ops
    reduces = sorted(op.count for op in ops if op.name == "all_reduce")
    layers = mr.get_model("MiniMaxAI/MiniMax-M2.5").num_hidden_layers
    assert reduces == [layers, 1 + 2 * layers]
