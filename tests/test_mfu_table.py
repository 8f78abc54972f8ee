"""The MFU-table cost: parity with BLIS's and InferSim's compositions, our own composition, laws, bad input."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import naive_costs as naive
import naive_peers as peers
from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.costs.mfu_table import BoundMfuTable
from mfuroof.costs.rounding import peer_step_us
from mfuroof.errors import ConfigError, InputError, MfuroofWarning, MissingTableError, UnknownNameError
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig, Quantization
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS
from mfuroof.tables.load import load_bench_data

GPU = {"bf16": 989.5e12, "bandwidth": 3.35e12}
H100 = Hardware.from_figures(
    "h100_figures", bf16_tflops_per_s=989.5, hbm_tb_per_s=3.35, fp8_tflops_per_s=1979, nvlink_gb_per_s=450
)
H20 = Hardware.from_figures(
    "h20_figures", bf16_tflops_per_s=148, hbm_tb_per_s=4.096, fp8_tflops_per_s=296, nvlink_gb_per_s=450
)
SMALL = {
    "hidden_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 3000,
    "vocab_size": 5000,
}


def model(**changes):
    return ModelConfig(**{**SMALL, **changes})


def bind(tables, params, config=None, hardware=H100, **parallel):
    return BoundMfuTable.bind(config or model(), hardware, Parallel(**parallel), params, tables=tables)


def times(bound, batch):
    out = np.full(len(batch), np.nan)
    bound.step_times(batch, out)
    return out


def parts(bound, batch):
    out = np.full((len(bound.components), len(batch)), np.nan)
    bound.component_times(batch, out)
    return dict(zip(bound.components, out, strict=True))


def ragged(*steps):
    return StepBatch.ragged(prefill=[p for p, _ in steps], decode=[d for _, d in steps])


steps = st.tuples(
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 3000)), max_size=4),
    st.lists(st.integers(0, 20_000), max_size=6),
)

# ------------------------------------------------------------------------------------------------ small tables

TOKENS = (8, 16, 64, 256, 1024, 4096)
LENGTHS = (1024, 4096, 8192)
BATCHES = (1, 16, 64)
KV = (1024, 4096, 16384)


def gemm_seconds(m, k, n, peak=1979e12):
    """A kernel with a launch, a weight read and a rate that rises with m."""
    return 4e-6 + max(k * n / 2.6e12, 2 * m * k * n / (0.6 * peak)) + 1e-9 * m


def decode_seconds(batch, kv, heads=8, kv_heads=2, dim=128):
    return 9e-6 + batch * kv * 2 * kv_heads * dim * 2 / (3e12 * (0.5 + 0.5 * min(batch / 16, 1)))


def prefill_seconds(length, heads=8, dim=128):
    return 7e-6 + 2 * heads * dim * length**2 / (989.5e12 * 0.6)


def write(folder, name, header, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def put_gemm(folder, gpu="h100"):
    rows = []
    for k in (1024, 3072):
        for n in (1024, 3072, 6144):
            for m in TOKENS:
                s = gemm_seconds(m, k, n)
                rows.append((m, k, n, f"{s * 1e6:.6f}", f"{2 * m * k * n / (s * 1979e12):.6f}"))
    write(folder, f"gemm/{gpu}/data.csv", "m,k,n,latency_us,mfu", rows)


def put_attention(folder, gpu="h100", stems=("8-2-128",), zero=False):
    for stem in stems:
        heads, kv_heads, dim = map(int, stem.split("-"))
        rows = []
        for length in LENGTHS:
            s = prefill_seconds(length, heads, dim)
            rows.append(("bf16", length, f"{s * 1e6:.6f}", f"{2 * heads * dim * length**2 / (s * 989.5e12):.6f}"))
        write(folder, f"mha/prefill/{gpu}/{stem}.csv", "dtype,seq_len,latency_us,mfu", rows)
        for tp in (1, 2, None):
            rows, rank = [], max(heads // (tp or 1), 1)
            for batch in BATCHES:
                for kv in KV if batch < 64 else KV[:2]:
                    s = decode_seconds(batch, kv, rank, max(kv_heads // (tp or 1), 1), dim)
                    mfu = 4 * rank * dim * batch * kv / (s * 989.5e12)
                    text = "0.0" if zero and batch == 1 and kv == 1024 else f"{mfu:.6f}"
                    rows.append(("bf16", "bf16", batch, kv, f"{s * 1e6:.6f}", text))
            name = stem if tp is None else f"{stem}-tp{tp}"
            write(folder, f"mha/decode/{gpu}/{name}.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("bench")
    put_gemm(made)
    put_attention(made, stems=("8-2-128", "16-4-64"), zero=True)
    return made


@pytest.fixture(scope="module")
def data(folder):
    return load_bench_data(folder)


# ------------------------------------------------------------------------------------------------ parity with BLIS


def blis_lookup(folder, rule, heads, kv_heads, dim, tp, gpu="h100"):
    gemm = [(int(m), int(k), int(n), float(u)) for m, k, n, _, u in peers.body(folder / f"gemm/{gpu}/data.csv")]
    stems = sorted(p.stem for p in (folder / f"mha/prefill/{gpu}").glob("*.csv"))
    stem = peers.blis_configuration(stems, heads, kv_heads, dim)
    prefill = [((int(r[1]),), float(r[3])) for r in peers.body(folder / f"mha/prefill/{gpu}/{stem}.csv")]
    files = {int(p.stem.split("-tp")[1]): p for p in (folder / f"mha/decode/{gpu}").glob(f"{stem}-tp*.csv")}
    chosen = files[peers.blis_tp(sorted(files), tp, rule)]
    decode = [((int(r[2]), int(r[3])), float(r[5])) for r in peers.body(chosen)]
    floor = rule == "blis_floor"
    return SimpleNamespace(
        gemm=lambda m, k, n: peers.blis_gemm(rule, gemm, m, k, n),
        prefill=lambda s: peers.blis_floor_attention(prefill, (s,)) if floor else peers.blis_v2_prefill(prefill, s),
        decode=lambda b, kv: (
            peers.blis_floor_attention(decode, (b, kv)) if floor else peers.blis_v2_decode(decode, b, kv)
        ),
    )


BOUND = {}
BLIS = {"blis_v2": CostParams.blis_mfu, "blis_floor": CostParams.blis_mfu_floor}


def symbols_of(config):
    return {
        "hidden_size": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "kv_heads": config.num_key_value_heads,
        "intermediate_size": config.intermediate_size,
        "act_bytes": 2.0,
    }


@pytest.mark.parametrize("rule", BLIS)
@given(step=steps, tp=st.sampled_from([1, 2, 4]), kv_heads=st.sampled_from([2, 8]))
def test_blis__matches_definition(rule, folder, data, step, tp, kv_heads):
    config = model(num_key_value_heads=kv_heads)
    lookup = blis_lookup(folder, rule, 8, kv_heads, 128, tp)
    expected = naive.blis_table_time(
        symbols_of(config), GPU, step, lookup, tp=tp, efficiency=0.82, layer_overhead=100e-6
    )
    key = rule, kv_heads, tp
    if key not in BOUND:
        BOUND[key] = bind(data, BLIS[rule](), config, tp_size=tp)
    got = times(BOUND[key], ragged(step))
    npt.assert_allclose(got, expected, rtol=1e-12)


@pytest.mark.parametrize("rule", BLIS)
def test_blis__matches_definition_on_real_tables(rule, shared):
    folder = shared / "bench_data" / "blis"
    data = load_bench_data(folder)
    rng = np.random.default_rng(4)
    for d, layers, heads, kv_heads, width, tp in (
        (4096, 32, 32, 8, 14336, 1), (8192, 80, 64, 8, 28672, 4), (5120, 40, 40, 40, 13824, 2), (3584, 28, 28, 4, 18944, 1)
    ):  # fmt: skip
        config = ModelConfig(
            hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=kv_heads,
            intermediate_size=width, vocab_size=1000,
        )  # fmt: skip
        lookup = blis_lookup(folder, rule, heads, kv_heads, d // heads, tp)
        bound = bind(data, BLIS[rule](), config, tp_size=tp)
        for _ in range(6):
            prefill = [(int(p), int(t)) for p, t in rng.integers(0, 5000, (rng.integers(0, 4), 2))]
            decode = [int(p) for p in rng.integers(0, 150_000, rng.integers(0, 300))]
            expected = naive.blis_table_time(
                symbols_of(config), GPU, (prefill, decode), lookup, tp=tp, efficiency=0.82, layer_overhead=100e-6
            )
            got = times(bound, ragged((prefill, decode)))
            npt.assert_allclose(got, expected, rtol=1e-11)
            assert peer_step_us(got, "blis_mfu") == max(1, int(np.floor(expected * 1e6 + 0.5)))


# ------------------------------------------------------------------------------------------------ parity with InferSim


@pytest.fixture(scope="module")
def infersim_folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("infersim")
    rng = np.random.default_rng(1)
    rows = [
        (m, k, n, 1.0, f"{rng.uniform(0.01, 0.9):.3f}")
        for k in (512, 1024, 4096)
        for n in (768, 2048, 8192)
        for m in (1, 16, 256, 2048)
    ]
    write(made, "gemm/h20/data.csv", "m,k,n,latency_us,mfu", rows)
    for stem in ("8-2-128", "4-1-128"):
        rows = [("bf16", s, 1.0, f"{rng.uniform(0.2, 0.9):.3f}") for s in (512, 1024, 4096)]
        write(made, f"mha/prefill/h20/{stem}.csv", "dtype,seq_len,latency_us,mfu", rows)
        rows = [
            ("bf16", kv, b, length, 1.0, f"{rng.uniform(0.01, 0.5):.3f}")
            for kv in ("bf16", "fp8")
            for b in (1, 16, 64)
            for length in (1024, 4096)
        ]
        write(made, f"mha/decode/h20/{stem}.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)
    rows = [("bf16", "bf16", b, kv, 1.0, f"{rng.uniform(0.1, 0.6):.3f}") for b in (1, 64) for kv in (1024, 4096)]
    write(made, "mla/decode/h20/8-512-64.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)
    rows = [("bf16", s, 1.0, f"{rng.uniform(0.2, 0.9):.3f}") for s in (512, 4096)]
    write(made, "mla/prefill/h20/8-128-64.csv", "dtype,seq_len,latency_us,mfu", rows)
    for phase, tokens in (("prefill", "seq_len_per_gpu"), ("decode", "batch_size_per_gpu")):
        rows = [
            (16, gpus, 16 // gpus, 2, 1024, 512, t, 1, 1.0, f"{rng.uniform(0.05, 0.8):.3f}", 1.0,
             f"{rng.uniform(0.05, 0.8):.3f}")
            for gpus in (1, 4)
            for t in (16, 128, 2048)
        ]  # fmt: skip
        header = f"num_experts,num_gpus,num_local_experts,topk,hidden_size,intermediate_size,{tokens},tokens_per_expert"
        write(made, f"grouped_gemm/{phase}/h20/data.csv", f"{header},up_proj_us,up_mfu,down_proj_us,down_mfu", rows)
    return made


DENSE = {"hidden_size": 1024, "num_layers": 6, "heads": 8, "kv_heads": 2, "head_dim": 128, "kv_bytes": 2}
NAIVE_MODELS = {
    "dense": DENSE | {"fp8": False, "width": 3000},
    "dense fp8": DENSE | {"fp8": True, "width": 3000, "kv_bytes": 1},
    "mixture": DENSE | {"fp8": False, "experts": 16, "experts_per_token": 2, "expert_width": 512, "shared": 1},
    "latent": DENSE
    | {"fp8": False, "width": 3000, "latent": {"q_rank": 384, "rank": 512, "nope": 128, "rope": 64, "v": 128}},
}


def fp8(config):
    """Give every matrix of the layers the FP8 format."""
    layers = tuple(
        dataclasses.replace(s, formats=tuple(sorted((m.name, FORMATS["fp8"]) for m in config.modules(s) if m.matrix_params)))
        for s in config.layers
    )  # fmt: skip
    object.__setattr__(config, "layers", layers)
    return config


def infersim_model(name):
    if name == "mixture":
        return model(num_experts=16, num_experts_per_tok=2, moe_intermediate_size=512, n_shared_experts=1)
    if name == "latent":
        return model(
            q_lora_rank=384, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
            num_key_value_heads=8,
        )  # fmt: skip
    return fp8(model(kv_dtype="fp8")) if name == "dense fp8" else model()


def infersim_lookup(folder, name, tp, world):
    def body(path):
        return peers.body(folder / path)

    heads, kv_heads, cache = 8 // tp, 2 // tp, "fp8" if name == "dense fp8" else "bf16"
    stem = f"mha/{{}}/h20/{heads}-{kv_heads}-128.csv"
    decode = body("mla/decode/h20/8-512-64.csv") if name == "latent" else body(stem.format("decode"))
    prefill = body("mla/prefill/h20/8-128-64.csv") if name == "latent" else body(stem.format("prefill"))
    grouped = {phase: body(f"grouped_gemm/{phase}/h20/data.csv") for phase in ("prefill", "decode")}
    key = (16, world, 16 // (world // tp), 2, 1024, 512 // tp)
    return SimpleNamespace(
        gemm=lambda m, k, n: peers.infersim_gemm(body("gemm/h20/data.csv"), 0.6, m, k, n),
        decode=lambda b, kv: peers.infersim_decode(decode, cache, b, kv),
        prefill=lambda s: peers.infersim_prefill(prefill, 0.6, s),
        grouped=lambda phase, t: peers.infersim_grouped(grouped[phase], phase, key, 0.6, t),
    )


FIGURES = {"bf16_tflops": 148, "fp8_tflops": 296, "hbm_gb": 4096, "link_gb": 450}


@pytest.mark.parametrize(("name", "tp", "world"), [
    ("dense", 1, 1), ("dense", 2, 2), ("dense fp8", 1, 1), ("mixture", 1, 1), ("mixture", 1, 4), ("latent", 1, 1)
])  # fmt: skip
def test_infersim__matches_definition(infersim_folder, name, tp, world):
    tables = load_bench_data(infersim_folder)
    config = infersim_model(name)
    bound = bind(tables, CostParams.infersim(), config, H20, tp_size=tp, dp_size=world // tp, ep_size=world // tp)
    lookup = infersim_lookup(infersim_folder, name, tp, world)
    rng = np.random.default_rng(7)
    for batch, length in [(1, 1024), (15, 1000), (16, 4096), *rng.integers(1, 5000, (12, 2)).tolist()]:
        for phase in ("decode", "prefill"):
            count = batch if phase == "decode" else 1 + batch % 4
            expected = naive.infersim_ms(
                NAIVE_MODELS[name], FIGURES, phase, count, length, lookup, tp=tp, world=world
            )
            shape = (
                {"decode_batch": count, "decode_context": length}
                if phase == "decode"
                else {"prefill_batch": count, "prefill_new_tokens": length}
            )
            npt.assert_allclose(times(bound, StepBatch.uniform(**shape)) * 1e3, expected, rtol=1e-12)


def test_infersim__zero_in_a_table_gives_no_time_instead_of_a_crash(tmp_path):
    put_gemm(tmp_path, "h20")
    put_attention(tmp_path, "h20", zero=True)
    bound = bind(load_bench_data(tmp_path), CostParams.infersim(), hardware=H20)
    batch = StepBatch.uniform(decode_batch=[1, 1, 16], decode_context=[1024, 4096, 1024])
    assert np.isnan(times(bound, batch)).tolist() == [True, False, False]
    npt.assert_array_equal(times(bound, ragged(([], [1024]), ([], [4096]), ([], [1024] * 16))), times(bound, batch))


# ------------------------------------------------------------------------------------------------ ours

OURS = CostParams()
RAW = dataclasses.replace(OURS, monotone=False, weight_floor=False, kv_floor=False)


def test_ours__measured_kernels_come_back_as_measured(data):
    """Shapes that were measured, FP8 weights: the step is the sum of the table's latencies."""
    config = fp8(model(num_attention_heads=8, num_key_value_heads=2, head_dim=128, intermediate_size=3072))
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
    whole, half = bind(data, RAW, model()), bind(data, RAW, fp8(model()))
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
    alone = {kv: parts(bound, StepBatch.uniform(decode_batch=3, decode_context=kv))["attention_decode"][0] for kv in (99, 7000)}
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
    floors = bind(data, dataclasses.replace(RAW, weight_floor=True, kv_floor=True), hardware=slow)
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
    config = model()
    layers = tuple(
        dataclasses.replace(s, attention=dataclasses.replace(s.attention, sliding_window=512)) for s in config.layers
    )
    object.__setattr__(config, "layers", layers)
    bound, full = bind(data, OURS, config), bind(data, OURS)
    far, near = (StepBatch.uniform(decode_batch=4, decode_context=c) for c in (20_000, 511))
    npt.assert_array_equal(times(bound, far), times(bound, near))
    npt.assert_array_equal(times(bound, near), times(full, near))
    long = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=8192)
    assert parts(bound, long)["attention_prefill"] < 0.2 * parts(full, long)["attention_prefill"]


# ------------------------------------------------------------------------------------------------ laws

PRESETS = {
    "ours": OURS,
    "sqrt": dataclasses.replace(OURS, prefill_blend="sqrt", prefix_launch_kept=False),
    "floor": dataclasses.replace(RAW, lookup_rule="floor"),
    "nearest": dataclasses.replace(OURS, lookup_rule="nearest_l2", mixed_batch_penalty=0.3),
    "max": dataclasses.replace(OURS, phase_combination="max", step_memory_floor=True, overlap_penalty=0.5),
    "weighted": dataclasses.replace(OURS, phase_combination="token_weighted", decode_aggregation="max_kv"),
    "joint": dataclasses.replace(OURS, phase_combination="joint", step_memory_floor=True, step_overhead_s=1e-4),
    "blis_v2": CostParams.blis_mfu(),
    "blis_floor": CostParams.blis_mfu_floor(),
}


class Bounds:
    """Bound evaluators by preset; an object of its own, so that reports of failures stay short."""

    def __init__(self, data):
        self.by_name = {name: bind(data, params, tp_size=2) for name, params in PRESETS.items()}

    def __getitem__(self, name):
        return self.by_name[name]


@pytest.fixture(scope="module")
def bounds(data):
    return Bounds(data)


@pytest.mark.parametrize("name", PRESETS)
@given(
    counts=st.tuples(st.integers(0, 100), st.integers(0, 6)),
    lengths=st.tuples(st.integers(0, 30_000), st.integers(0, 5000), st.integers(0, 9000)),
    emits=st.booleans(),
)
def test_uniform_equals_its_ragged_spelling(name, bounds, counts, lengths, emits):
    bound, (decoding, prefills), (context, new, prefix) = bounds[name], counts, lengths
    uniform = StepBatch.uniform(decoding, context, prefills, new, prefix, emits)
    listed = StepBatch.ragged([[(prefix, new)] * prefills], [[context] * decoding], [[emits] * prefills])
    counted = StepBatch.from_csr(
        decode_offsets=[0, 1], decode_contexts=[context], decode_counts=[decoding], prefill_offsets=[0, 1],
        prefill_contexts=[prefix], prefill_new_tokens=[new], prefill_counts=[prefills], prefill_emits=[emits],
    )  # fmt: skip
    expected = times(bound, uniform)
    assert np.isfinite(expected).all()
    npt.assert_allclose(times(bound, listed), expected, rtol=1e-12)
    npt.assert_allclose(times(bound, counted), expected, rtol=1e-12)


@pytest.mark.parametrize("name", PRESETS)
@given(st.lists(steps, min_size=1, max_size=4), st.randoms())
def test_parts_combine_and_order_slices_and_splits_do_not_matter(name, bounds, given_steps, random):
    bound, batch = bounds[name], ragged(*given_steps)
    expected = times(bound, batch)
    rows = np.empty((len(bound.components), len(batch)))
    bound.component_times(batch, rows)
    npt.assert_allclose(bound.combine(rows), expected, rtol=1e-13)
    resources = np.empty((4, len(batch)))
    bound.resource_times(batch, resources)
    npt.assert_allclose(resources.sum(axis=0), rows.sum(axis=0), rtol=1e-12)
    shuffled = [(random.sample(p, len(p)), random.sample(d, len(d))) for p, d in given_steps]
    npt.assert_allclose(times(bound, ragged(*shuffled)), expected, rtol=1e-12)
    alone = [times(bound, batch.slice(i, i + 1))[0] for i in range(len(batch))]
    npt.assert_array_equal(alone, expected)


@given(steps)
def test_ours_never_falls_as_a_step_grows_and_stays_above_the_roofline(bounds, step):
    bound, (prefill, decode) = bounds["ours"], step
    base = times(bound, ragged(step))[0]
    grown = []
    if decode:
        grown += [(prefill, [*decode, max(decode)]), (prefill, [decode[0] + 1, *decode[1:]])]
    if prefill:
        (p, t), *rest = prefill
        grown += [([(p + 1, t), *rest], decode), ([(p, t + 1), *rest], decode), ([(p, t), *prefill], decode)]
    for more in grown:
        assert times(bound, ragged(more))[0] >= base * (1 - 1e-12)
    batch = ragged(step)
    compute = bound.flops(batch)["gemm"] / GPU["bf16"]
    weights = bound.work.dense_bytes if prefill or decode else 0.0
    assert base >= max(compute[0], 0.999 * weights / GPU["bandwidth"]) * (1 - 1e-9)  # norms are no products


def test_floor_lookup_breaks_monotonicity_and_our_default_keeps_it(shared):
    data = load_bench_data(shared / "bench_data" / "blis")
    config = ModelConfig(
        hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        intermediate_size=14336, vocab_size=128256,
    )  # fmt: skip
    batch = StepBatch.uniform(decode_batch=np.arange(1, 513), decode_context=2000)
    fall = {}
    for name, params in (("floor", CostParams.blis_mfu_floor()), ("ours", OURS)):
        seconds = times(bind(data, params, config), batch)
        fall[name] = (1 - seconds[1:] / seconds[:-1]).max()
    assert fall["floor"] > 0.1  # one more request, a tenth less time
    assert fall["ours"] <= 0


def test_penalties_at_zero_change_nothing_and_act_on_mixed_steps_only(data):
    plain, penalised = bind(data, OURS), bind(data, dataclasses.replace(OURS, mixed_batch_penalty=0.5))
    pure = ragged(([(0, 500)], []), ([], [100, 200]))
    npt.assert_array_equal(times(plain, pure), times(penalised, pure))
    mixed = ragged(([(0, 6)], [100] * 6))
    npt.assert_allclose(times(penalised, mixed), times(plain, mixed) / 0.75, rtol=1e-12)


def test_empty_steps(data):
    empty = ragged(([], []))
    assert times(bind(data, OURS), empty) == 0
    npt.assert_allclose(times(bind(data, CostParams.blis_mfu()), empty), 6 * 100e-6, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ sources and tables


def test_sources_say_how_far_the_tables_reach(data):
    config = fp8(model(num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4, head_dim=128))
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
    slow = dataclasses.replace(H100, peak_flops_per_s={k: v / 2 for k, v in H100.peak_flops_per_s.items()})
    batch = StepBatch.uniform(decode_batch=16, decode_context=2000)
    reference = load_bench_data(data.folder, peaks={"h100": {"bf16": 989.5e12, "fp8": 1979e12}})
    npt.assert_allclose(times(bind(reference, RAW, hardware=slow), batch), 2 * times(bind(reference, RAW), batch))


def test_presets_say_what_they_ignore(data, infersim_folder):
    int4 = model()
    layers = tuple(
        dataclasses.replace(s, formats=tuple(sorted((m.name, FORMATS["int4_wo"]) for m in int4.modules(s) if m.matrix_params)))
        for s in int4.layers
    )  # fmt: skip
    object.__setattr__(int4, "layers", layers)
    object.__setattr__(int4, "quantization", Quantization(method="gptq", weight_bits=4, weight_bytes_nominal=0.5))
    with pytest.warns(MfuroofWarning, match="precision"):
        bind(data, CostParams.blis_mfu(), int4)
    with pytest.warns(MfuroofWarning, match="precision"):
        bind(load_bench_data(infersim_folder), CostParams.infersim(), int4, H20)
    with pytest.warns(MfuroofWarning, match="experts"):
        bind(data, CostParams.blis_mfu(), model(num_experts=8, num_experts_per_tok=2, moe_intermediate_size=256))


def test_layers_that_no_table_knows_are_refused(data):
    config = model()
    layers = tuple(dataclasses.replace(s, attention=dataclasses.replace(s.attention, kind="mamba")) for s in config.layers)
    object.__setattr__(config, "layers", layers)
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
