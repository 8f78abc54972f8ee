"""The MFU-table cost against plain-Python compositions of BLIS and InferSim, on made and on real tables."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import naive_costs as naive
import naive_peers as peers
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mfu_folders import GPU, H20, bind, model, put_attention, put_gemm, ragged, steps, stored_as, times, write

from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.costs.rounding import peer_step_us
from mfuroof.errors import MfuroofWarning, MissingTableError
from mfuroof.models import ModelConfig
from mfuroof.params import CostParams
from mfuroof.step import StepEvaluator
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


@pytest.mark.filterwarnings("ignore:BLIS's rule reads:mfuroof.errors.MfuroofWarning")
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


@pytest.mark.filterwarnings("ignore:BLIS's rule reads:mfuroof.errors.MfuroofWarning")
@pytest.mark.parametrize("rule", BLIS)
def test_blis__matches_definition_on_real_tables(rule, shared):
    folder = shared / "bench_data" / "blis"
    data = load_bench_data(folder)
    rng = np.random.default_rng(4)
    for d, layers, heads, kv_heads, width, tp in (
        (4096, 32, 32, 8, 14336, 1),
        (8192, 80, 64, 8, 28672, 4),
        (5120, 40, 40, 40, 13824, 2),
        (3584, 28, 28, 4, 18944, 1),
    ):
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


def infersim_model(name):
    if name == "mixture":
        return model(num_experts=16, num_experts_per_tok=2, moe_intermediate_size=512, n_shared_experts=1)
    if name == "latent":
        return model(
            q_lora_rank=384, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
            num_key_value_heads=8,
        )  # fmt: skip
    return stored_as(model(kv_dtype="fp8"), "fp8") if name == "dense fp8" else model()


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


def test_infersim__zero_in_a_table_is_answered_as_missing_says(tmp_path):
    """The peer divides by it. The cell is named; what else the table holds is answered as ever."""
    put_gemm(tmp_path, "h20")
    put_attention(tmp_path, "h20", zero=True)
    tables, cell = load_bench_data(tmp_path), r"mha/decode/h20/8-2-128.csv at batch_size 1, kv_len 1024 is printed as 0"
    batch = StepBatch.uniform(decode_batch=[1, 1, 16], decode_context=[1024, 4096, 1024])
    raising = bind(tables, CostParams.infersim(), hardware=H20)
    with pytest.raises(MissingTableError, match=cell):
        times(raising, batch)
    answered = times(raising, batch.slice(1, 3))
    spelled = ragged(([], [1024]), ([], [4096]), ([], [1024] * 16))
    for missing, code in (("nan", Source.MISSING), ("roofline", Source.ROOFLINE)):
        bound = bind(load_bench_data(tmp_path), replace(CostParams.infersim(), missing=missing), hardware=H20)
        with pytest.warns(MfuroofWarning, match=cell):
            found = times(bound, batch)
        npt.assert_array_equal(found[1:], answered)
        assert np.isnan(found[0]) if missing == "nan" else 0.0 < found[0] < np.inf
        source, distance = np.empty(3, np.uint8), np.empty(3)
        bound.sources(batch, source, distance)  # said once
        assert source[0] == code and (source[1:] < Source.ROOFLINE).all()
        npt.assert_array_equal(times(bound, spelled), found)



def test_blis__an_empty_cell_in_a_blend_is_warned_of_once(tmp_path):
    """One absent corner: near it the utilisation goes to zero and a step to seconds; elsewhere nothing is said."""
    put_gemm(tmp_path)
    put_attention(tmp_path)
    tables = load_bench_data(tmp_path)  # batch 64 was not measured at 16384
    bound = bind(tables, CostParams.blis_mfu())
    times(bound, StepBatch.uniform(decode_batch=[1, 16, 64], decode_context=[1024, 16384, 4096]))  # as measured
    near = StepBatch.uniform(decode_batch=63, decode_context=16300)
    with pytest.warns(MfuroofWarning, match=r"8-2-128-tp1.csv at batch_size 64, kv_len 16384.*lookup_rule=.latency"):
        slow = times(bound, near)
    npt.assert_array_equal(times(bound, near), slow)  # and not again
    remedy = bind(tables, replace(CostParams.blis_mfu(), lookup_rule="latency"))
    npt.assert_array_less(2.0 * times(remedy, near), slow)


def test_infersim__a_step_without_prompts_needs_no_prefill_mfu():
    """Below the first measured length InferSim falls back to a default, which it does not have for this GPU."""
    bound = StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", cost="mfu_table", params=CostParams.infersim())
    decode = StepBatch.uniform(decode_batch=[8, 32], decode_context=1000)
    assert (np.diff(bound.step_time(decode)) > 0).all()
