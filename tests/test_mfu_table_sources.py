"""Where the MFU-table cost finds its times: ragged grids, latent attention, other cache formats, borrowed experts."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.testing as npt
import pytest
from mfu_folders import H100, OURS, RAW, bind, model, parts, put_attention, put_gemm, times, with_attention, write

from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.errors import ConfigError, InputError, MissingTableError
from mfuroof.hardware import get_hardware
from mfuroof.models import ModelConfig, get_model
from mfuroof.params import CostParams
from mfuroof.step import StepEvaluator
from mfuroof.tables.load import load_bench_data
from mfuroof.tables.store import bench_data_root


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bench")
    put_gemm(made)
    put_attention(made)
    return made


def put_decode(folder, cells):
    """Write decode times {(batch, KV length): microseconds} of the shape of `mfu_folders.SMALL`."""
    rows = [("bf16", "bf16", b, kv, us, 0.1) for (b, kv), us in cells.items()]
    write(folder, "mha/decode/h100/8-2-128.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)


def decode_us(bound, batch, kv):
    step = StepBatch.uniform(decode_batch=batch, decode_context=np.array(kv) - 1)
    return parts(bound, step)["attention_decode"] / 6 * 1e6


def test_gaps_of_a_ragged_grid_go_on_with_the_slope_of_the_smaller_batch(tmp_path):
    put_gemm(tmp_path)
    put_attention(tmp_path)
    for file in (tmp_path / "mha/decode/h100").iterdir():
        file.unlink()
    put_decode(tmp_path, {
        (1, 2048): 10, (1, 4096): 14, (1, 8192): 20,
        (4, 4096): 50, (4, 8192): 70, (4, 16384): 110,
        (16, 8192): 200,
    })  # fmt: skip
    bound = bind(load_bench_data(tmp_path), RAW)
    npt.assert_allclose(decode_us(bound, 1, 16384), 40, rtol=1e-9)  # the first row: in proportion
    npt.assert_allclose(decode_us(bound, 4, 2048), 50 - 4 * (14 - 10), rtol=1e-9)
    npt.assert_allclose(decode_us(bound, 16, [4096, 2048]), [200 - 4 * 20, 120 - 4 * 16], rtol=1e-9)
    npt.assert_allclose(decode_us(bound, 16, 16384), 200 + 4 * 40, rtol=1e-9)


def test_first_row_below_its_first_length_is_in_proportion(tmp_path):
    put_gemm(tmp_path)
    put_attention(tmp_path)
    for file in (tmp_path / "mha/decode/h100").iterdir():
        file.unlink()
    put_decode(tmp_path, {(1, 4096): 16, (4, 1024): 9, (4, 4096): 30})
    bound = bind(load_bench_data(tmp_path), RAW)
    npt.assert_allclose(decode_us(bound, 1, 1024), 4, rtol=1e-9)


def test_another_cache_format_lends_its_share_of_the_roofline(folder):
    """8-bit keys and values move half the bytes; nothing else of a memory-bound read changes."""
    data, step = load_bench_data(folder), StepBatch.uniform(decode_batch=16, decode_context=16383)
    whole, half = bind(data, RAW), bind(data, RAW, model(kv_dtype="fp8"))
    # queries and outputs keep their 16 bits: a few parts in 10,000 of what is moved
    npt.assert_allclose(parts(half, step)["attention_decode"], parts(whole, step)["attention_decode"] / 2, rtol=1e-3)
    code, _ = half.kinds[0].decode.sources(np.array([16.0]), np.array([16384.0]))
    assert code == Source.SUBSTITUTED
    with pytest.raises(MissingTableError, match="fp8 cache"):
        bind(data, dataclasses.replace(RAW, transfer=False), model(kv_dtype="fp8"))


def test_attention_without_a_table_may_have_no_answer(tmp_path):
    put_gemm(tmp_path)
    params = dataclasses.replace(OURS, missing="nan")
    bound = bind(load_bench_data(tmp_path), params)
    step = StepBatch.uniform(decode_batch=[0, 2], decode_context=100, prefill_batch=[1, 0], prefill_new_tokens=50)
    assert np.isnan(times(bound, step)).all()
    source, distance = np.empty(2, np.uint8), np.empty(2)
    bound.sources(step, source, distance)
    assert (source == Source.MISSING).all()


@pytest.mark.parametrize("own_rule", ["floor", "latency"])
def test_latent_attention_is_priced_in_the_latent_space(tmp_path, own_rule):
    put_gemm(tmp_path)
    rows = [("bf16", "bf16", b, kv, 1.0, 0.3) for b in (1, 64) for kv in (1024, 4096)]
    write(tmp_path, "mla/decode/h100/8-512-64.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)
    rows = [("bf16", s, 100.0, 0.5) for s in (512, 4096)]
    write(tmp_path, "mla/prefill/h100/8-128-64.csv", "dtype,seq_len,latency_us,mfu", rows)
    latent = model(
        q_lora_rank=384, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
        num_key_value_heads=8,
    )  # fmt: skip
    data = load_bench_data(tmp_path)
    bound = bind(data, dataclasses.replace(RAW, lookup_rule=own_rule), latent)
    got = parts(bound, StepBatch.uniform(decode_batch=64, decode_context=4095))["attention_decode"]
    npt.assert_allclose(got, 6 * 1e-6, rtol=1e-9)  # the measured latency
    got = parts(bound, StepBatch.uniform(prefill_batch=1, prefill_new_tokens=4096))["attention_prefill"]
    npt.assert_allclose(got, 6 * 100e-6, rtol=1e-9)
    kind = bound.kinds[0]
    npt.assert_allclose(kind.decode_s, 6 * 2 * 8 * (512 + 64 + 512) / 989.5e12, rtol=1e-9)
    npt.assert_allclose(kind.prefill_s, 6 * 2 * 8 * (128 + 64 + 128) / 989.5e12, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:BLIS's rule reads:mfuroof.errors.MfuroofWarning")
def test_sources_of_a_rule_and_of_buckets(folder):
    data = load_bench_data(folder)
    step = StepBatch.uniform(
        decode_batch=[1, 3, 0, 0],
        decode_context=1023,
        prefill_batch=[0, 0, 1, 1],
        prefill_new_tokens=[0, 0, 1024, 3000],
    )
    for params in (dataclasses.replace(RAW, lookup_rule="floor"), CostParams.blis_mfu()):
        bound = bind(data, params)
        assert "1 kinds of attention" in repr(bound)
        decode, _ = bound.kinds[0].decode.sources(np.array([1.0, 3.0]), np.array([1024.0, 1024.0]))
        assert decode.tolist() == [Source.EXACT, Source.INTERPOLATED]
        prefill, far = bound.kinds[0].prefill.sources(np.array([1024.0, 3000.0]))
        assert prefill[0] == Source.EXACT and far[0] == 0
        source, distance = np.empty(4, np.uint8), np.empty(4)
        bound.sources(step, source, distance)
        assert (source >= Source.INTERPOLATED).all() and np.isfinite(distance).all()


def test_the_uniform_architecture_may_be_sharded_matrix_by_matrix(folder):
    """BLIS's seven matrices, cut over two ranks instead of counted whole and halved."""
    params = dataclasses.replace(CostParams.blis_mfu(), gemm_layout="sharded", lookup_rule="linear")
    slow = dataclasses.replace(H100, hbm_bytes_per_s=1e11)
    bound = bind(load_bench_data(folder), params, hardware=slow, tp_size=2)
    step = StepBatch.uniform(decode_batch=1, decode_context=10)
    matrices = 1024 * 1024 * 2 + 2 * 1024 * 256 + 3 * 1024 * 3000
    npt.assert_allclose(parts(bound, step)["decode_gemm"], 6 * matrices / 2 * 2 / (1e11 * 0.82), rtol=1e-9)


def test_a_peer_of_one_kind_of_attention_refuses_more(folder):
    hybrid = get_model("google/gemma-4-26B-A4B")  # full layers have wider heads
    with pytest.raises(ConfigError, match="2 kinds of attention"):
        bind(load_bench_data(folder), CostParams.infersim(), hybrid, H100)


# ------------------------------------------------------------------------------------------------ embedded kernels

MIXTURE = {
    "hidden_size": 2048, "num_hidden_layers": 48, "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
    "intermediate_size": 6144, "vocab_size": 151936, "num_experts": 100, "num_experts_per_tok": 7,
    "moe_intermediate_size": 800,
}  # fmt: skip


def test_unmeasured_experts_take_the_time_that_the_kernels_cost_gives_them():
    gpu, step = get_hardware("h100_sxm"), StepBatch.uniform(decode_batch=[1, 16, 256], decode_context=1023)
    config = ModelConfig(**MIXTURE)
    bound = bind(None, OURS, config, gpu)
    source, distance = np.empty(3, np.uint8), np.empty(3)
    bound.sources(step, source, distance)
    assert (source == Source.SUBSTITUTED).all()
    kernels = StepEvaluator(config, gpu).evaluate(step).op_time_s
    # grouped products are measured with their launches: what differs is where a borrowed curve is sampled
    npt.assert_allclose(
        parts(bound, step)["gemm"], sum(kernels[n] for n in ("qkv_gemm", "o_gemm", "router", "experts")), rtol=0.1
    )
    with pytest.raises(MissingTableError, match="grouped GEMM"):
        bind(None, dataclasses.replace(OURS, transfer=False), config, gpu)


def test_embedded_tables_without_the_format_of_the_weights_or_of_the_cache():
    gpu = get_hardware("h100_sxm")
    config = {k: v for k, v in MIXTURE.items() if "expert" not in k and "moe" not in k}
    strict = dataclasses.replace(OURS, transfer=False)
    assert times(bind(None, strict, ModelConfig(**config), gpu), StepBatch.uniform(decode_batch=4)) > 0
    with pytest.raises(MissingTableError, match="int8 cache"):
        bind(None, strict, ModelConfig(**config, kv_dtype="int8"), gpu)
    with pytest.raises(MissingTableError):
        bind(None, strict, ModelConfig(**config).with_precision(weight_dtype="w4a16_mxfp4"), gpu)


def test_windowed_layers_of_an_embedded_gpu_are_priced_once_a_kind():
    gpu = get_hardware("h100_sxm")
    config = ModelConfig(**{k: v for k, v in MIXTURE.items() if "expert" not in k and "moe" not in k})
    bound = bind(None, OURS, with_attention(config, sliding_window=1024), gpu)
    near, far = (StepBatch.uniform(decode_batch=8, decode_context=c) for c in (1023, 100_000))
    npt.assert_allclose(parts(bound, near)["attention_decode"], parts(bound, far)["attention_decode"], rtol=1e-12)


def test_kernel_tables_may_be_given_as_a_folder():
    gpu, config = get_hardware("l40s"), get_model("meta-llama/Meta-Llama-3.1-8B")
    step = StepBatch.uniform(decode_batch=[1, 64], decode_context=1000)
    given = bind(bench_data_root() / "l40s", OURS, config, gpu)
    npt.assert_array_equal(times(given, step), times(bind(None, OURS, config, gpu), step))
    with pytest.raises(InputError, match="tables"):
        bind({"gemm": 1}, OURS, config, gpu)
