"""The constant-MFU roofline: parity with plain-Python definitions of the peers and of ours, and bad input."""

from __future__ import annotations

import dataclasses

import naive_costs as naive
import numpy as np
import numpy.testing as npt
import pytest
from constant_cases import GPU, H100, LLAMA, OURS, bind, latent, llama, parts, quantised, ragged, steps, times
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.costs.constants import mfu_pair
from mfuroof.costs.rounding import peer_step_us
from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.params import CostParams

# ------------------------------------------------------------------------------------------------ parity with BLIS


@st.composite
def peer_models(draw):
    heads = draw(st.sampled_from([1, 7, 32]))
    kv_heads = draw(st.sampled_from([1, heads]))
    shape = {
        "hidden_size": heads * draw(st.sampled_from([64, 96])),
        "num_hidden_layers": draw(st.integers(1, 9)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,  # never read by the peer
        "intermediate_size": draw(st.sampled_from([1000, 4096])),
        "vocab_size": 1000,
    }
    nbytes = draw(st.sampled_from([None, 0.375, 0.5, 1.0, 2.0]))
    symbols = {
        "hidden_size": shape["hidden_size"],
        "num_layers": shape["num_hidden_layers"],
        "heads": heads,
        "kv_heads": kv_heads,
        "intermediate_size": shape["intermediate_size"],
        "act_bytes": 2.0,
        "weight_bytes": nbytes or 2.0,
    }
    if draw(st.booleans()):
        experts = draw(st.sampled_from([2, 8, 60]))
        symbols |= {"num_experts": experts, "experts_per_token": draw(st.integers(1, min(experts, 8)))}
        symbols["moe_intermediate_size"] = draw(st.sampled_from([128, 512]))
        shape |= {
            "num_experts": experts,
            "num_experts_per_tok": symbols["experts_per_token"],
            "moe_intermediate_size": symbols["moe_intermediate_size"],
        }
    if nbytes:
        shape["quantization"] = quantised(nbytes)
    return ModelConfig(**shape), symbols


@given(
    peer_models(), steps, st.sampled_from([1, 2, 3, 8]), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([0.0, 0.7])
)
def test_blis__matches_definition(model, step, tp, mixed, overlap):
    config, symbols = model
    bound = bind(config, CostParams.blis(0.45, 0.3, mixed, overlap), tp_size=tp)
    expected = naive.blis_time(
        symbols, GPU, step, tp=tp, mfu_prefill=0.45, mfu_decode=0.3, mixed=mixed, overlap=overlap
    )
    npt.assert_allclose(times(bound, ragged(step)), expected, rtol=1e-12)
    compute, memory = naive.blis_parts(symbols, GPU, step, tp=tp, mfu_prefill=0.45, mfu_decode=0.3, mixed=mixed)
    got = parts(bound, ragged(step))
    npt.assert_allclose([got["compute"][0], got["memory"][0]], [compute, memory], rtol=1e-12)


def test_blis__hand_computed_decode_step_of_llama_8b():
    # 10,200,547,328 B of weights (two MLP matrices), 2 * 32 * 1024 * 2 B of cache a token
    memory = (10_200_547_328 + 131_072 * 2048 + 32 * 4096 * 2) / 3.35e12
    bound = bind(llama(), CostParams.blis(0.45, 0.3))
    got = times(bound, StepBatch.uniform(decode_batch=1, decode_context=2047))
    npt.assert_allclose(got, memory, rtol=1e-12)
    assert peer_step_us(got, "blis").tolist() == [3125]


@pytest.mark.parametrize(("step", "sparse"), [(0, 8), (1, 4), (2, 2), (3, 2), (8, 0)])
@pytest.mark.parametrize("own_width", [0, 10_000])
def test_blis__interleaved_experts_count_one_layer_in_step_plus_one(step, sparse, own_width):
    shape = {"num_hidden_layers": 8, "num_experts": 16, "num_experts_per_tok": 1, "moe_intermediate_size": 8192}
    model = llama(**shape)  # as a peer reads the two fields; ours go by the layers
    object.__setattr__(model, "interleave_moe_layer_step", step)
    object.__setattr__(model, "intermediate_size_mlp", own_width)
    symbols = {
        "hidden_size": 4096, "num_layers": 8, "heads": 32, "kv_heads": 8, "intermediate_size": 14336,
        "act_bytes": 2.0, "weight_bytes": 2.0, "num_experts": 16, "experts_per_token": 1,
        "moe_intermediate_size": 8192, "interleave": step, "intermediate_size_mlp": own_width,
    }  # fmt: skip
    bound = bind(model, CostParams.blis(0.45, 0.3))
    per_expert = 2 * 4096 * 8192 * 2
    saturated = bound.bytes_moved(StepBatch.uniform(decode_batch=5000))["weights"] - bound.work.dense_bytes
    npt.assert_allclose(saturated, sparse * 16 * per_expert, rtol=1e-12)
    batch = ([(0, 100)], [500] * 3)
    expected = naive.blis_time(symbols, GPU, batch, mfu_prefill=0.45, mfu_decode=0.3)
    npt.assert_allclose(times(bound, ragged(batch)), expected, rtol=1e-12)


def test_blis__reads_the_interleaving_step_of_a_config():
    fields = {"num_hidden_layers": 8, "num_experts": 16, "num_experts_per_tok": 1, "moe_intermediate_size": 8192}
    bound = bind(llama(**fields, interleave_moe_layer_step=1), CostParams.blis(0.45, 0.3))
    assert bound.work.experts[0].bytes_per_expert == 4 * 2 * 4096 * 8192 * 2


def test_blis__fp8_rate_only_for_exactly_one_byte_and_a_gpu_that_has_it():
    batch = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=8192)
    ampere = Hardware.from_figures("figures", bf16_tflops_per_s=989.5, hbm_tb_per_s=3.35)
    preset = CostParams.blis(0.45, 0.3)
    full, half = bind(llama(), preset), bind(llama(quantization=quantised(1.0)), preset)
    npt.assert_allclose(times(half, batch) * 2, times(full, batch), rtol=1e-12)
    for model, gpu in ((llama(quantization=quantised(1.0)), ampere), (llama(quantization=quantised(0.5)), H100)):
        npt.assert_allclose(times(bind(model, preset, gpu), batch), times(full, batch), rtol=1e-12)


CONSTANTS = {
    "mfu_prefill": 0.65,
    "mfu_decode": 0.12,
    "bandwidth_efficiency": 0.72,
    "prefill_tp_exponent": 0.68,
    "decode_tp_exponent": 0.9,
}


@given(steps, st.sampled_from([1, 2, 8]))
def test_calibrated__matches_definition(step, tp):
    params = CostParams.blis_calibrated(**CONSTANTS, prefill_bandwidth_factor=0.9, decode_bandwidth_factor=0.6)
    constants = CONSTANTS | {
        "prefill_factor": 0.9, "decode_factor": 0.6, "vector": 0.1, "all_reduce": 20e-6,
        "overhead": 50e-6, "prefill_overhead": 100e-6, "mixed_overhead": 50e-6,
    }  # fmt: skip
    symbols = {
        "hidden_size": 4096, "num_layers": 32, "heads": 32, "kv_heads": 8, "intermediate_size": 14336, "act_bytes": 2.0
    }  # fmt: skip
    expected = naive.calibrated_time(symbols, GPU, step, tp=tp, c=constants)
    npt.assert_allclose(times(bind(llama(), params, tp_size=tp), ragged(step)), expected, rtol=1e-12)


def test_calibrated__kv_bandwidth_grows_with_the_batch():
    params = dataclasses.replace(
        OURS, kv_bandwidth_base=0.4, kv_bandwidth_gain=0.3, kv_bandwidth_batch=64, weight_bandwidth_efficiency=0.9
    )
    bound, plain = bind(llama(), params), bind(llama())
    for batch, efficiency in ((1, 0.4 + 0.3 / 64), (32, 0.55), (64, 0.7), (500, 0.7)):
        step = StepBatch.uniform(decode_batch=batch, decode_context=3000)
        read = batch * 3000 * 131_072 / 3.35e12
        weights = plain.bytes_moved(step)["weights"][0] / 3.35e12
        extra = read * (1 / efficiency - 1) + weights * (1 / 0.9 - 1)
        npt.assert_allclose(parts(bound, step)["memory"], parts(plain, step)["memory"] + extra, rtol=1e-12)


# ------------------------------------------------------------------------------------------------ parity with ours

small = {"hidden_size": 256, "vocab_size": 999, "weight_bytes": 2.0, "kv_bytes": 2.0}
small_steps = st.tuples(
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 150)), max_size=3),
    st.lists(st.integers(0, 300), max_size=4),
)


@given(small_steps, st.sampled_from([1, 2, 3, 8]), st.sampled_from([None, 64]), st.booleans())
def test_ours__matches_definition(step, tp, window, mixture):
    fields = {
        "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 96,
        "intermediate_size": 700, "vocab_size": 999,
    }  # fmt: skip
    layer = {"heads": 4, "kv_heads": 2, "head_dim": 96, "window": window, "width": 700, "matrices": 3}
    if mixture:
        fields |= {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 128, "n_shared_experts": 1}
        layer |= {"experts": 8, "experts_per_token": 2, "expert_width": 128, "shared_width": 128}
    model = ModelConfig(**fields)
    if window:
        layers = [
            dataclasses.replace(s, attention=dataclasses.replace(s.attention, sliding_window=window))
            for s in model.layers
        ]
        object.__setattr__(model, "layers", tuple(layers))
    compute, memory = naive.layered_parts(
        small | {"layers": [layer] * 3}, GPU, step, tp=tp, mfu_prefill=0.5, mfu_decode=0.4
    )
    got = parts(bind(model, tp_size=tp), ragged(step))
    npt.assert_allclose([got["compute"][0], got["memory"][0]], [compute, memory], rtol=1e-10)


def test_ours__counts_what_the_peer_leaves_out():
    batch = StepBatch.uniform(decode_batch=1, decode_context=2047)
    weights = bind(llama()).bytes_moved(batch)["weights"][0]
    embedding = 128256 * 4096 * 2
    npt.assert_allclose(weights, llama().weight_bytes - embedding, rtol=1e-6)  # all but the embedding table
    wide = ModelConfig(**LLAMA | {"head_dim": 256})
    assert bind(wide).flops(batch)["attention"] == 2 * bind(llama()).flops(batch)["attention"]
    peer = CostParams.blis(0.5, 0.4)
    assert bind(wide, peer).flops(batch)["attention"] == bind(llama(), peer).flops(batch)["attention"]


def test_ours__only_emitting_requests_pay_the_lm_head():
    def step(emits):
        return StepBatch.uniform(prefill_batch=3, prefill_new_tokens=64, emits=emits)

    bound = bind(llama())
    head = 128256 * 4096
    assert bound.flops(step(True))["lm_head"] == 3 * 2 * head and bound.flops(step(False))["lm_head"] == 0
    with_head, without = parts(bound, step(True)), parts(bound, step(False))
    npt.assert_allclose(with_head["compute"] - without["compute"], 3 * 2 * head / (989.5e12 * 0.5), rtol=1e-9)
    npt.assert_allclose(with_head["memory"] - without["memory"], 2 * head / 3.35e12, rtol=1e-9)


def test_ours__latent_attention_reads_one_latent_on_every_rank():
    decode = StepBatch.uniform(decode_batch=2, decode_context=1000)
    for tp in (1, 4, 16, 32):
        bound = bind(latent(), tp_size=tp)
        assert bound.bytes_moved(decode)["kv_cache"] == 4 * 2 * 1001 * 576 * 2
        assert bound.flops(decode)["attention"] == 4 * 2 * 1001 * 2 * (576 + 512) * 16 / min(tp, 16)
    prefill = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=10, prefill_context=7)
    pairs = sum(range(8, 18))
    assert bind(latent()).flops(prefill)["attention"] == 4 * pairs * 2 * (192 + 128) * 16


# ------------------------------------------------------------------------------------------------ records and rounding


def test_sources_say_roofline_and_components_name_resources():
    bound = bind(llama())
    source, distance = np.zeros(2, np.uint8), np.ones(2)
    bound.sources(ragged(([], [1]), ([(0, 5)], [])), source, distance)
    assert source.tolist() == [Source.ROOFLINE] * 2 and distance.tolist() == [0, 0]
    assert bound.components == RESOURCES
    assert bind(llama(), CostParams.blis_calibrated()).components[0] == "prefill_compute"


def test_peer_rounding():
    values = [0.0, 0.4e-6, 1.999e-6, 2.5e-6, float("nan"), float("inf"), 1e30]
    largest = 2**63 - 1
    assert peer_step_us(values, "blis").tolist() == [0, 0, 1, 2, largest, largest, largest]
    assert peer_step_us(values, "blis_step").tolist()[:3] == [1, 1, 1]
    assert peer_step_us(values, "blis_mfu").tolist()[:4] == [1, 1, 2, 3]
    assert peer_step_us(values[:4], "blis").tolist() == [naive.blis_us(v) for v in values[:4]]
    with pytest.raises(UnknownNameError):
        peer_step_us(1.0, "blis_go")


# ------------------------------------------------------------------------------------------------ bad input


def test_all_bad_parameters_are_named_at_once():
    with pytest.raises(InputError) as error:
        CostParams.blis(mfu_prefill=0.0, mfu_decode=float("nan"), mixed_batch_penalty=1.01, overlap_penalty=-1e-9)
    where = [p.where for p in error.value.problems]
    assert where == ["mfu_prefill", "mfu_decode", "mixed_batch_penalty", "overlap_penalty"]
    assert all("[0, 1]" in p.expected or "(0" in p.expected for p in error.value.problems)


@pytest.mark.parametrize(
    "field",
    [
        {"mfu_prefill": float("inf")},
        {"mfu_decode": -0.1},
        {"mfu_prefill": "high"},
        {"mixed_batch_penalty": float("nan")},
        {"overlap_penalty": 2},
        {"bandwidth_efficiency": 0},
        {"bandwidth_efficiency": None},
        {"attention_peak_fraction": 1.5},
        {"architecture": "mamba"},
        {"phase_combination": "mean"},
        {"phase_combination": 3},
        {"monotone": "yes"},
        {"mlp_matrices": 0},
        {"prefill_bucket_min": 500},
        {"prefill_bucket_min": 1024, "prefill_bucket_max": 512},
        {"step_overhead_s": -1e-6},
    ],
)
def test_bad_parameter_is_named(field):
    with pytest.raises(InputError) as error:
        CostParams(**field)
    assert error.value.problems[0].where == next(iter(field))


def test_numbers_given_as_text_become_numbers():
    assert CostParams(overlap_penalty="0.25").overlap_penalty == 0.25


def test_odd_utilisation_warns():
    with pytest.warns(MfuroofWarning, match="above 1"):
        CostParams(mfu_prefill=4.222)
    with pytest.warns(MfuroofWarning, match="swapped"):
        CostParams.blis(0.3, 0.45)
    with pytest.warns(MfuroofWarning, match="swapped"):
        bind(llama(), CostParams(mfu_decode=0.9))


def test_none_takes_the_gpus_pair():
    h100 = dataclasses.replace(H100, name="h100_sxm")
    batch = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=4096)
    npt.assert_array_equal(
        times(bind(llama(), CostParams.blis(), h100), batch), times(bind(llama(), CostParams.blis(0.45, 0.3)), batch)
    )
    assert bind(llama(), CostParams(), h100).mfu_decode == 0.3
    assert mfu_pair(dataclasses.replace(H100, name="NVIDIA L40S")) == ((0.32, 0.08), True)
    assert mfu_pair(dataclasses.replace(H100, name="a10", arch="ampere")) == ((0.38, 0.18), False)
    with pytest.warns(MfuroofWarning, match="no MFU pair"):
        bind(llama(), CostParams.blis(), dataclasses.replace(H100, name="mi300x"))


def test_presets_say_what_they_ignore():
    mixture = llama(num_experts=16, num_experts_per_tok=3)
    with pytest.warns(MfuroofWarning, match="experts"):
        bind(mixture, CostParams.blis_calibrated())
    with pytest.warns(MfuroofWarning, match="latent attention"):
        bind(latent(), CostParams.blis(0.45, 0.3))
    with pytest.warns(MfuroofWarning, match="KV cache"):
        bind(llama(kv_dtype="fp8"), CostParams.blis(0.45, 0.3))
    bind(mixture, CostParams.blis(0.45, 0.3))  # experts and weight precision are seen
    bind(llama(quantization=quantised(0.5)), CostParams.blis(0.45, 0.3))
