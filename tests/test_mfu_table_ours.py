"""The MFU-table cost under our own conventions: composition, sources, policies, and tables made of measured kernels."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import numpy.testing as npt
import pytest
from mfu_folders import (
    H20,
    H100,
    LENGTHS,
    OURS,
    RAW,
    bind,
    decode_seconds,
    gemm_seconds,
    model,
    parts,
    prefill_seconds,
    put_attention,
    put_gemm,
    ragged,
    stored_as,
    times,
    with_attention,
)

from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.errors import ConfigError, InputError, MfuroofWarning, MissingTableError, UnknownNameError
from mfuroof.models import ModelConfig, Quantization
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS
from mfuroof.tables.load import load_bench_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bench")
    put_gemm(made)
    put_attention(made, stems=("8-2-128", "16-4-64"), zero=True)
    return made


@pytest.fixture(scope="module")
def data(folder):
    return load_bench_data(folder)


# ------------------------------------------------------------------------------------------------ ours



def test_ours__measured_kernels_come_back_as_measured(data):
    """Shapes that were measured, FP8 weights: the step is the sum of the table's latencies."""
    config = stored_as(model(num_attention_heads=8, num_key_value_heads=2, head_dim=128, intermediate_size=3072), "fp8")
    bound = bind(data, RAW, config)
    got = parts(bound, StepBatch.uniform(decode_batch=[16, 64], decode_context=[1023, 4095], emits=False))
    # fused QKV is 1536 wide and gate-up 6144: QKV borrows the utilisation of 3072
    for i, (batch, kv) in enumerate(((16, 1024), (64, 4096))):
        qkv = gemm_seconds(batch, 1024, 3072) * 1536 / 3072
        others = gemm_seconds(batch, 1024, 1024) + gemm_seconds(batch, 1024, 6144) + gemm_seconds(batch, 3072, 1024)
        npt.assert_allclose(got["gemm"][i], 6 * (qkv + others), rtol=1e-6)
        npt.assert_allclose(got["attention_decode"][i], 6 * decode_seconds(batch, kv), rtol=1e-6)
    got = parts(bound, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=[1024, 4096, 8192]))
    npt.assert_allclose(got["attention_prefill"], [6 * prefill_seconds(s) for s in LENGTHS], rtol=1e-6)


def test_ours__sixteen_bit_products_run_at_the_16_bit_rate(data):
    whole, half = bind(data, RAW, model()), bind(data, RAW, stored_as(model(), "fp8"))
    batch = StepBatch.uniform(decode_batch=16, decode_context=100)
    npt.assert_allclose(parts(whole, batch)["gemm"], 2 * parts(half, batch)["gemm"], rtol=1e-12)


def test_ours__latency_is_linear_between_points_and_flat_below(data):
    bound = bind(data, RAW)
    seconds = bound.tokens_s[0]
    npt.assert_allclose(seconds[40], 0.5 * (seconds[16] + seconds[64]), rtol=1e-12)
    npt.assert_allclose(seconds[1:8], seconds[8], rtol=1e-12)
    beyond = StepBatch.uniform(decode_batch=[4096, 8192], decode_context=10)
    gemm = parts(bound, beyond)["gemm"]
    npt.assert_allclose(gemm[1], 2 * gemm[0], rtol=1e-12)


def test_ours__mixed_lengths_add_each_requests_time(data):
    bound = bind(data, RAW)
    alone = {
        kv: parts(bound, StepBatch.uniform(decode_batch=3, decode_context=kv))["attention_decode"][0]
        for kv in (99, 7000)
    }
    mixed = parts(bound, ragged(([], [99, 7000, 7000])))["attention_decode"][0]
    npt.assert_allclose(mixed, alone[99] / 3 + 2 * alone[7000] / 3, rtol=1e-12)


def test_decode_aggregations(data):
    batch = ragged(([], [1023, 16383]))
    shares = np.array([1024.0, 16384.0])
    mfu = np.array([
        data.attn_decode_mfu("h100", 8, 2, 128, 2, kv, rule="loglog") for kv in (1024, 16384)
    ])  # fmt: skip
    expected = {
        "per_request": (shares / mfu).sum(),
        "harmonic": (shares / mfu).sum(),
        "flops_weighted": shares.sum() / ((shares * mfu).sum() / shares.sum()),
        "max_kv": shares.sum() / mfu[1],
    }
    unit = 6 * 4 * 8 * 128 / 989.5e12
    for name, value in expected.items():
        params = dataclasses.replace(RAW, lookup_rule="loglog", decode_aggregation=name)
        npt.assert_allclose(parts(bind(data, params), batch)["attention_decode"], unit * value, rtol=1e-7)


def test_prefill_divisor_area_and_buckets(data):
    unit = 6 * 4 * 8 * 128 / 989.5e12
    mfu = {s: data.attn_prefill_mfu("h100", 8, 2, 128, s, rule="floor") for s in (1024, 2048, 4096)}
    base = dataclasses.replace(RAW, lookup_rule="floor")
    chunk = ragged(([(1000, 500)], []))
    for change, area, length in (
        ({}, 500 * 1000 + 500**2 / 2, 1024),
        ({"causal_divisor": 1.8}, 500 * 1000 + 500**2 / 1.8, 1024),
        ({"causal_area": "square", "causal_divisor": 1.8}, 500 * 1500 / 1.8, 1024),
        ({"prefill_bucket_min": 4096}, 500 * 1000 + 500**2 / 2, 4096),
    ):
        got = parts(bind(data, dataclasses.replace(base, **change)), chunk)["attention_prefill"]
        npt.assert_allclose(got, unit * area / mfu[length], rtol=1e-7)


def test_weight_and_cache_floors(data):
    slow = dataclasses.replace(H100, hbm_bytes_per_s=1e11)
    floored = dataclasses.replace(RAW, lookup_rule="linear", weight_floor=True, kv_floor=True)
    floors = bind(data, floored, hardware=slow)  # a held MFU knows no bandwidth
    batch = StepBatch.uniform(decode_batch=16, decode_context=16384)
    got = parts(floors, batch)
    weights = 6 * (1024 * 1536 + 1024 * 1024 + 3 * 1024 * 3000) * 2 / 1e11
    npt.assert_allclose(got["gemm"], weights, rtol=1e-12)
    npt.assert_allclose(got["attention_decode"], 6 * 16 * 16384 * 1024 / 1e11, rtol=1e-12)


def test_tp_shards_products_and_adds_ring_all_reduces(data):
    batch = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=2000)
    got = parts(bind(data, OURS, tp_size=2), batch)
    npt.assert_allclose(got["comm"], 2 * 6 * 2 * 0.5 * 2000 * 1024 * 2 / 450e9, rtol=1e-12)
    assert got["gemm"] < parts(bind(data, OURS), batch)["gemm"]
    whole = dataclasses.replace(RAW, gemm_layout="whole")
    npt.assert_allclose(
        parts(bind(data, whole, tp_size=2), batch)["gemm"] * 2, parts(bind(data, whole), batch)["gemm"], rtol=1e-12
    )


def test_windows_cap_what_is_attended_to(data):
    config = with_attention(model(), sliding_window=512)
    bound, full = bind(data, OURS, config), bind(data, OURS)
    far, near = (StepBatch.uniform(decode_batch=4, decode_context=c) for c in (20_000, 511))
    npt.assert_array_equal(times(bound, far), times(bound, near))
    npt.assert_array_equal(times(bound, near), times(full, near))
    long = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=8192)
    assert parts(bound, long)["attention_prefill"] < 0.2 * parts(full, long)["attention_prefill"]


# ------------------------------------------------------------------------------------------------ sources and tables


def test_sources_say_how_far_the_tables_reach(data):
    config = stored_as(model(num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4, head_dim=128), "fp8")
    bound = bind(data, OURS, model())
    batch = StepBatch.uniform(decode_batch=[16, 20, 16, 16], decode_context=[4095, 4095, 16383, 40_000])
    source, distance = np.empty(4, np.uint8), np.empty(4)
    bound.sources(batch, source, distance)
    assert (source == Source.SUBSTITUTED).all() and (distance > 0).all()  # weights that were not measured
    decode = bound.kinds[0].decode
    code, far = decode.sources(np.array([16.0, 20.0, 16.0, 64.0]), np.array([4096.0, 4096.0, 40_000.0, 16384.0]))
    assert code.tolist() == [Source.EXACT, Source.INTERPOLATED, Source.EXTRAPOLATED, Source.EXTRAPOLATED]
    assert far[0] == 0 and far[1] > 0
    other = bind(data, OURS, config).kinds[0].decode.sources(np.array([16.0]), np.array([4096.0]))
    assert other[0] == Source.SUBSTITUTED and other[1] >= 1  # twice the KV heads: one octave


def test_missing_shapes_follow_the_policy(data):
    config = model(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256)
    batch = StepBatch.uniform(decode_batch=4, decode_context=100)
    with pytest.raises(MissingTableError, match="grouped GEMM"):
        bind(data, OURS, config)
    assert np.isnan(times(bind(data, dataclasses.replace(OURS, missing="nan"), config), batch)).all()
    bound = bind(data, dataclasses.replace(OURS, missing="roofline"), config)
    assert (times(bound, batch) > bound.work.dense_bytes / 3.35e12).all()
    strict = dataclasses.replace(OURS, transfer=False)
    with pytest.raises(MissingTableError, match="decode attention"):
        bind(data, strict, model(num_key_value_heads=4))


def test_roofline_policy_prices_attention_by_cache_reads(tmp_path):
    put_gemm(tmp_path)
    bound = bind(load_bench_data(tmp_path), dataclasses.replace(OURS, missing="roofline"))
    got = parts(bound, StepBatch.uniform(decode_batch=3, decode_context=5000))["attention_decode"]
    npt.assert_allclose(got, 6 * 3 * 5000 * 1024 / 3.35e12, rtol=1e-12)
    code, _ = bound.kinds[0].decode.sources(np.array([1.0]), np.array([1.0]))
    assert code == Source.ROOFLINE


def test_tables_are_found_by_name_folder_or_refused(folder, data):
    assert times(bind(folder, OURS), ragged(([], [5]))) == times(bind(data, OURS), ragged(([], [5])))
    with pytest.warns(MfuroofWarning, match="tables are of h100"):
        bind(data, OURS, hardware=dataclasses.replace(H100, name="b200_sxm"))
    with pytest.raises(InputError, match="tables"):
        bind(3.5, OURS)


def test_several_gpus_and_none_that_fits(tmp_path):
    put_gemm(tmp_path, "h100")
    put_gemm(tmp_path, "h20")
    with pytest.raises(UnknownNameError, match="h100"):
        bind(load_bench_data(tmp_path), OURS, hardware=dataclasses.replace(H100, name="mi300x"))


def test_hypothetical_hardware_keeps_utilisation(data):
    narrow = dataclasses.replace(H100, hbm_bytes_per_s=3.35e12 / 2)
    slow = dataclasses.replace(narrow, peak_flops_per_s={k: v / 2 for k, v in H100.peak_flops_per_s.items()})
    batch = StepBatch.uniform(decode_batch=16, decode_context=2000, prefill_batch=1, prefill_new_tokens=8192)
    base, less, half = (parts(bind(data, RAW, hardware=gpu), batch) for gpu in (H100, narrow, slow))
    for name in ("gemm", "attention_prefill", "attention_decode"):
        npt.assert_allclose(half[name], 2 * base[name], rtol=1e-3)  # the catalogue's H100 has 989.4 TFLOP/s
    npt.assert_allclose(less["attention_decode"], 2 * base["attention_decode"], rtol=1e-3)
    npt.assert_allclose(less["attention_prefill"], base["attention_prefill"], rtol=1e-2)


def test_four_bit_weights_take_a_quarter_where_weights_are_read(data):
    whole, quarter = bind(data, RAW), bind(data, RAW, stored_as(model(), "int4_wo"))
    light, heavy = (StepBatch.uniform(decode_batch=b, decode_context=10) for b in (8, 4096))
    bits = FORMATS["int4_wo"].bytes_per_weight / 2
    npt.assert_allclose(parts(quarter, light)["gemm"], bits * parts(whole, light)["gemm"], rtol=1e-3)
    npt.assert_allclose(parts(quarter, heavy)["gemm"], parts(whole, heavy)["gemm"], rtol=1e-3)


@pytest.mark.filterwarnings("ignore:BLIS's rule reads:mfuroof.errors.MfuroofWarning")
@pytest.mark.parametrize("rule", ["latency", "floor", "blis_v2"])
def test_bound_tables_survive_pickling(data, rule):
    params = dataclasses.replace(RAW, lookup_rule=rule)
    bound = bind(data, params)
    again = pickle.loads(pickle.dumps(bound))
    batch = StepBatch.uniform(decode_batch=[1, 20], decode_context=3000, prefill_batch=1, prefill_new_tokens=700)
    npt.assert_array_equal(times(again, batch), times(bound, batch))
    assert not again.tokens_s.flags.writeable and not again.constants.flags.writeable


def test_presets_say_what_they_ignore(data, tmp_path):
    put_gemm(tmp_path, "h20")
    put_attention(tmp_path, "h20")
    int4 = stored_as(model(), "int4_wo")
    object.__setattr__(int4, "quantization", Quantization(method="gptq", weight_bits=4, weight_bytes_nominal=0.5))
    with pytest.warns(MfuroofWarning, match="precision"):
        bind(data, CostParams.blis_mfu(), int4)
    with pytest.warns(MfuroofWarning, match="precision"):
        bind(load_bench_data(tmp_path), CostParams.infersim(), int4, H20)
    with pytest.warns(MfuroofWarning, match="experts"):
        bind(data, CostParams.blis_mfu(), model(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256))


def test_layers_that_no_table_knows_are_refused(data):
    config = with_attention(model(), kind="mamba")
    with pytest.raises(ConfigError, match="mamba attention"):
        bind(data, OURS, config)


# ------------------------------------------------------------------------------------------------ embedded tables


@pytest.mark.parametrize("params", [OURS, CostParams.blis_mfu(), CostParams.blis_mfu_floor(), CostParams.infersim()])
def test_embedded_kernels_become_mfu_tables(params):
    from mfuroof.hardware import get_hardware

    config = ModelConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, vocab_size=128256,
    )  # fmt: skip
    if params.lookup_rule == "infersim":
        params = dataclasses.replace(params, missing="roofline")
    gpu = get_hardware("h100_sxm")
    for tp in (1, 2):
        bound = bind(None, params, config, gpu, tp_size=tp)
        seconds = times(bound, StepBatch.uniform(decode_batch=[1, 64, 256], decode_context=1023))
        assert (seconds > bound.work.dense_bytes / gpu.hbm_bytes_per_s).all() and (seconds < 0.05).all()
        assert (np.diff(seconds) > 0).all()


def test_embedded_kernels_of_a_mixture():
    from mfuroof.hardware import get_hardware

    config = ModelConfig(
        hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        intermediate_size=6144, vocab_size=151936, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
    )  # fmt: skip
    gpu = get_hardware("h100_sxm")
    for ep in (1, 2):
        bound = bind(None, OURS, config, gpu, tp_size=2, ep_size=ep)
        seconds = times(bound, StepBatch.uniform(decode_batch=[1, 16, 256], decode_context=1023))
        assert (seconds > 0.5e-3).all() and (seconds < 0.05).all() and (np.diff(seconds) > 0).all()
