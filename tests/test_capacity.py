"""KV capacity: equal to its definition, laws, known figures, errors, and the record."""

from __future__ import annotations

import dataclasses
import pickle
import warnings
from collections.abc import Sequence
from typing import Any

import naive_capacity as naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.capacity import CapacityParams, KvCapacity, kv_capacity
from mfuroof.capacity.check import valid_tp_sizes
from mfuroof.errors import InputError, MfuroofError, MfuroofWarning, UnknownNameError
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig, get_model, known_models
from mfuroof.models.sharding import stage_models

GIB = 2**30
LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LLAMA_70B = LLAMA_8B | {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "intermediate_size": 28672,
}
DEEPSEEK_V3: dict[str, Any] = {
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "intermediate_size": 18432,
    "vocab_size": 129280,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 2048,
    "n_shared_experts": 1,
    "first_k_dense_replace": 3,
}


def model(**fields: Any) -> ModelConfig:
    return ModelConfig(**{**LLAMA_8B, **fields})


def gpu(gib: float) -> Hardware:
    return Hardware.from_figures("test", bf16_tflops_per_s=1, hbm_tb_per_s=1, hbm_gib=gib)


# --- against the definition


@st.composite
def shapes(draw: st.DrawFn) -> dict[str, Any]:
    """A small model in the notation of the definition."""
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    n = draw(st.integers(1, 9))
    moe = draw(st.booleans())
    first_dense = draw(st.integers(0, n)) if moe else n
    window = draw(st.sampled_from([None, 100, 1024]))
    experts = {
        "experts": 8,
        "top": 2,
        "expert_width": 64 * draw(st.integers(1, 20)),
        "shared": 64 * draw(st.integers(0, 3)),
    }
    dense = {"width": 64 * draw(st.integers(1, 100))}
    layers = [
        {"window": window if draw(st.booleans()) else None, **(dense if i < first_dense else experts)} for i in range(n)
    ]
    return {
        "d": 64 * draw(st.integers(1, 32)),
        "vocab": 64 * draw(st.integers(1, 500)),
        "tied": draw(st.booleans()),
        "heads": 8 * draw(st.integers(1, 4)),
        "kv_heads": kv_heads,
        "head_dim": draw(st.sampled_from([32, 64, 128])),
        "layers": layers,
    }


def model_of(shape: dict[str, Any]) -> ModelConfig:
    layers = shape["layers"]
    moe = next((layer for layer in layers if "experts" in layer), None)
    fields = {
        "hidden_size": shape["d"],
        "vocab_size": shape["vocab"],
        "tie_word_embeddings": shape["tied"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": shape["head_dim"],
        "num_hidden_layers": len(layers),
        "intermediate_size": next((layer["width"] for layer in layers if "width" in layer), 64),
    }
    if moe:
        fields |= {"num_experts": moe["experts"], "num_experts_per_tok": moe["top"]}
        fields |= {"moe_intermediate_size": moe["expert_width"], "shared_expert_intermediate_size": moe["shared"]}
        fields |= {"first_k_dense_replace": sum("width" in layer for layer in layers)}
    window = next((layer["window"] for layer in layers if layer["window"]), None)
    if window:
        kinds = ["sliding_attention" if layer["window"] else "full_attention" for layer in layers]
        fields |= {"sliding_window": window, "layer_types": kinds}
    return ModelConfig(**fields)


degrees = st.sampled_from([(1, 1, 1, 1), (2, 1, 1, 1), (8, 1, 1, 1), (4, 1, 4, 1), (2, 1, 8, 4), (4, 1, 2, 2)])


@given(
    shapes(),
    degrees,
    st.integers(1, 4),
    st.floats(2, 80),
    st.sampled_from([0.5, 0.9, 0.95]),
    st.sampled_from([1, 16, 64]),
    st.sampled_from([("bf16", 2), ("fp8", 1), ("nvfp4", 0.5625)]),
    st.integers(1, 10_000),
)
def test_capacity_matches_the_definition(
    shape: dict[str, Any],
    ranks: tuple[int, int, int, int],
    pp: int,
    gib: float,
    util: float,
    block: int,
    kv: tuple[str, float],
    seq_len: int,
) -> None:
    tp, _, ep, dp = ranks
    pp = min(pp, len(shape["layers"]))
    device = gpu(gib)
    found = kv_capacity(
        model_of(shape), device, tp, pp, ep, dp, block_size=block, memory_utilization=util, kv_dtype=kv[0],
        seq_len=seq_len, params=CapacityParams(max_batched_tokens=2048, max_num_seqs=128),
    )  # fmt: skip
    blocks, sequences = naive.capacity(
        shape, device.hbm_bytes, tp, pp, ep, dp, block=block, util=util, element=kv[1], seq_len=seq_len,
        tokens=2048, sequences=128,
    )  # fmt: skip
    # an exact fraction may fall on the other side of a whole number than the float does
    assert abs(int(found.num_kv_blocks) - blocks) <= dp * (blocks > 10_000)
    assert found.max_sequences is not None
    assert abs(int(found.max_sequences) - sequences) <= dp * (sequences > 10_000)
    assert int(found.kv_capacity_tokens) == int(found.num_kv_blocks) * block
    assert bool(found.fits) == (blocks > 0 and sequences > 0)


@given(shapes(), st.integers(1, 4))
def test_stages_are_those_of_the_definition(shape: dict[str, Any], pp: int) -> None:
    n = len(shape["layers"])
    pp = min(pp, n)
    counts = tuple(sum(naive.stage_of(i, n, pp) == s for i in range(n)) for s in range(pp))
    whole = model_of(shape)
    stages = stage_models(whole, pp)
    assert tuple(s.num_hidden_layers for s in stages) == counts
    again = whole.vocab_size * whole.hidden_size if whole.tie_word_embeddings and pp > 1 else 0
    assert sum(s.total_params for s in stages) == whole.total_params + again
    assert sum(s.kv_bytes_per_token for s in stages) == pytest.approx(whole.kv_bytes_per_token)


# --- BLIS


def test_blis_figures_of_llama_8b_on_h100() -> None:
    found = kv_capacity(model(), "H100", [1, 4], params=CapacityParams.blis())
    assert found.num_kv_blocks.tolist() == [26_312, 135_752]  # BLIS says 543,011 at 4, four times too many


@given(
    st.integers(1, 80),
    st.sampled_from([(32, 8), (64, 8), (28, 4), (40, 40), (16, 1)]),
    st.sampled_from([64, 128]),
    st.integers(8, 220),
    st.integers(100, 2000),
    st.booleans(),
    st.sampled_from(["h100_sxm", "a100_sxm", "l40s"]),
    st.sampled_from([0.8, 0.9, 0.95, 1.0]),
    st.sampled_from([1, 16, 32]),
    st.sampled_from([0, 8, 128]),
)
def test_blis_preset_equals_blis_at_one_rank(
    layers: int,
    heads: tuple[int, int],
    head_dim: int,
    width: int,
    vocab: int,
    tied: bool,
    name: str,
    util: float,
    block: int,
    experts: int,
) -> None:
    d = heads[0] * head_dim
    numbers: dict[str, Any] = {
        "hidden_size": d,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "head_dim": head_dim,
        "intermediate_size": 128 * width,
        "vocab_size": 64 * vocab,
        "tie_word_embeddings": tied,
    }
    first_dense = min(1, layers - 1)
    if experts:
        numbers |= {"num_experts": experts, "num_experts_per_tok": 2, "moe_intermediate_size": 16 * width}
        numbers |= {"shared_expert_intermediate_size": 64, "first_k_dense_replace": first_dense}
    found = kv_capacity(
        ModelConfig(**numbers), name, block_size=block, memory_utilization=util, params=CapacityParams.blis()
    )
    expected = naive.blis_blocks(
        d=d, layers=layers, heads=heads[0], kv_heads=heads[1], head_dim=head_dim, width=128 * width, vocab=64 * vocab,
        tied=tied, memory_gib={"h100_sxm": 80, "a100_sxm": 80, "l40s": 48}[name], util=util, block=block,
        experts=experts, expert_width=16 * width, shared=64 * bool(experts), first_dense=first_dense * bool(experts),
    )  # fmt: skip
    assert int(found.num_kv_blocks) == expected


def test_blis_preset_counts_a_latent_as_blis_does() -> None:
    found = kv_capacity(ModelConfig(**DEEPSEEK_V3), gpu(2000), params=CapacityParams.blis())
    expected = naive.blis_blocks(
        d=7168, layers=61, heads=128, kv_heads=128, head_dim=ModelConfig(**DEEPSEEK_V3).head_dim, width=18432,
        vocab=129280, tied=False, memory_gib=2000, experts=256, expert_width=2048, shared=2048, first_dense=3,
        latent=512, rope=64,
    )  # fmt: skip
    assert int(found.num_kv_blocks) == expected


# --- known figures


def test_plausible_beside_vllm() -> None:
    # vLLM logs 54.93 GiB of cache (450 thousand tokens) before CUDA graphs
    assert 430_000 < int(kv_capacity(model(), "h100_sxm").kv_capacity_tokens) < 450_000
    seventy = kv_capacity(ModelConfig(**LLAMA_70B), "h100_sxm", [1, 2, 4, 8])
    assert seventy.fits.tolist() == [False, True, True, True]
    assert seventy.smallest_tp_that_fits.tolist() == [2, 2, 2, 2]


def test_kv_bytes_per_rank_by_kind_of_layer() -> None:
    eight = kv_capacity(model(), gpu(80), [1, 2, 8, 16, 32])
    assert (eight.kv_bytes_per_token / 1024).tolist() == [128, 64, 16, 16, 16]  # 8 KV heads: copied beyond 8 ranks
    latent = kv_capacity(ModelConfig(**DEEPSEEK_V3), gpu(4000), [1, 8], kv_dtype=[["bf16"], ["fp8"]])
    assert (latent.kv_bytes_per_token / (61 * 576)).tolist() == [[2, 2], [1, 1]]  # a latent is not sharded
    one = kv_capacity(model(), gpu(80), kv_dtype=["bf16", "fp8", "nvfp4"])
    assert (one.kv_bytes_per_token / 65536).tolist() == [2, 1, 0.5625]


def test_expert_parallel_ranks_hold_their_share_of_experts() -> None:
    m = ModelConfig(**DEEPSEEK_V3)
    experts = 58 * 256 * 3 * 7168 * 2048 * 2
    tp8, ep8, dp8 = (kv_capacity(m, gpu(4000), *p) for p in ((8, 1, 1, 1), (8, 1, 8, 1), (1, 1, 8, 8)))
    assert float(tp8.weight_bytes) == float(ep8.weight_bytes)
    rest = float(kv_capacity(m, gpu(4000)).weight_bytes) - experts
    assert float(dp8.weight_bytes) == pytest.approx(rest + experts / 8)


def test_windows_and_states_bound_a_sequence() -> None:
    n = 32
    kinds = ["sliding_attention", "full_attention"] * (n // 2)
    windowed = model(sliding_window=128, layer_types=kinds)
    plain, capped = (kv_capacity(m, gpu(80), seq_len=16384) for m in (model(), windowed))
    assert plain.max_sequences is not None
    assert capped.max_sequences is not None
    assert int(capped.kv_capacity_tokens) == int(plain.kv_capacity_tokens)
    ratio = int(capped.max_sequences) / int(plain.max_sequences)
    assert ratio == pytest.approx(2 / (1 + 128 / 16384), rel=0.05)


def test_states_of_linear_attention_are_per_sequence_and_sharded() -> None:
    m = get_model("Qwen/Qwen3.5-27B")  # 48 layers of linear attention, 16 of attention with 4 KV heads of 256
    state = 48 * (48 * 128 * 128 * 4 + (2 * 16 + 48) * 128 * 3 * 2)
    per_token = 16 * 4 * 2 * 256 * 2
    found = kv_capacity(m, gpu(100), [1, 4], seq_len=1000)
    left = 100 * GIB * 0.9 - found.weight_bytes - found.activation_bytes - found.reserved_bytes
    assert found.max_sequences is not None
    expected = left // ((state + per_token * 1008) / np.array([1, 4]))
    np.testing.assert_array_equal(found.max_sequences, expected)
    assert found.kv_bytes_per_token.tolist() == [per_token, per_token / 4]


def test_every_built_in_model_has_a_capacity() -> None:
    for name in known_models():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MfuroofWarning)
            m = get_model(name)
        sizes = valid_tp_sizes(m)
        found = kv_capacity(m, "h200_sxm", list(sizes), seq_len=8192)
        assert found.fits[-1], name
        assert (np.diff(found.fits.astype(int)) >= 0).all(), name
        assert 1 in found.smallest_tp_that_fits or not found.fits[0], name
        assert found.weight_bytes[0] == pytest.approx(m.weight_bytes, rel=1e-12), name
        assert found.kv_bytes_per_token[0] == pytest.approx(m.kv_bytes_per_token, rel=1e-12), name
        assert (found.weight_bytes * sizes >= m.weight_bytes * (1 - 1e-12)).all(), name
        staged = kv_capacity(m, "h200_sxm", sizes[-1], [1, 2], seq_len=8192)
        assert staged.weight_bytes[1] < staged.weight_bytes[0], name


# --- laws

grow = st.floats(1.0, 4.0)


def tokens(m: ModelConfig, device: Hardware, *args: Any, **options: Any) -> int:
    found = kv_capacity(m, device, *args, **options)
    return int(found.kv_capacity_tokens if found.max_sequences is None else found.max_sequences)


@given(st.floats(10, 200), grow, st.sampled_from([1, 2, 8]), st.sampled_from([None, 5000]))
def test_monotone_in_memory(gib: float, factor: float, tp: int, seq_len: int | None) -> None:
    assert tokens(model(), gpu(gib), tp, seq_len=seq_len) <= tokens(model(), gpu(gib * factor), tp, seq_len=seq_len)


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=20), st.sampled_from(["bf16", "fp8", "nvfp4"]))
def test_monotone_in_utilisation(utils: list[float], kv: str) -> None:
    found = kv_capacity(model(), gpu(40), memory_utilization=sorted(utils), kv_dtype=kv, seq_len=1000)
    assert (np.diff(found.kv_capacity_tokens) >= 0).all()
    assert found.max_sequences is not None
    assert (np.diff(found.max_sequences) >= 0).all()
    assert (np.diff(found.fits.astype(int)) >= 0).all()


@given(st.floats(20, 200), st.sampled_from([1, 4]))
def test_more_tokens_with_fewer_kv_bits(gib: float, tp: int) -> None:
    found = kv_capacity(model(), gpu(gib), tp, kv_dtype=["fp32", "bf16", "mxfp8", "fp8", "nvfp4", "mxfp4", "int4"])
    assert (np.diff(found.kv_capacity_tokens) >= 0).all()


@given(st.floats(5, 200), st.sampled_from([1, 2, 8]))
def test_more_tokens_with_fewer_weight_bits(gib: float, tp: int) -> None:
    dtypes = ["fp32", "bf16", "int8_wo", "fp8", "nvfp4", "int4_wo"]
    found = kv_capacity(model(), gpu(gib), tp, weight_dtype=dtypes)
    assert (np.diff(found.weight_bytes) < 0).all()
    assert (np.diff(found.kv_capacity_tokens) >= 0).all()
    assert (found.kv_bytes_per_token == found.kv_bytes_per_token[0]).all()
    assert (found.activation_bytes == found.activation_bytes[0]).all()


def test_one_number_for_every_weight() -> None:
    m = model()
    found = kv_capacity(m, gpu(80), [1, 2], weight_bytes_per_param=0.5, weight_dtype=[None, "auto"])
    assert found.weight_bytes[0] == 0.5 * m.total_params
    blis = kv_capacity(m, "H100", weight_bytes_per_param=0.5, params=CapacityParams.blis())
    assert int(blis.num_kv_blocks) == naive.blis_blocks(
        d=4096, layers=32, heads=32, kv_heads=8, head_dim=128, width=14336, vocab=128256, tied=False, memory_gib=80,
        weight=0.5,
    )  # fmt: skip
    with pytest.raises(InputError, match="weight_bytes_per_param"):
        kv_capacity(m, "H100", weight_bytes_per_param=9)


WIDTHS = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size", "head_dim")


@given(st.sampled_from(WIDTHS), st.integers(2, 4), st.floats(20, 300), st.sampled_from([1, 2, 8]))
def test_falls_in_layers_and_width(field: str, factor: int, gib: float, tp: int) -> None:
    wider = model(**{field: LLAMA_8B[field] * factor})
    for seq_len in (None, 3000):
        assert tokens(wider, gpu(gib), tp, seq_len=seq_len) <= tokens(model(), gpu(gib), tp, seq_len=seq_len)


@given(st.lists(st.integers(1, 200_000), min_size=2, max_size=20))
def test_fewer_sequences_the_longer_they_are(lengths: list[int]) -> None:
    windowed = model(sliding_window=4096, layer_types=["full_attention", "sliding_attention"] * 16)
    found = kv_capacity(windowed, gpu(60), seq_len=sorted(lengths))
    assert found.max_sequences is not None
    assert (np.diff(found.max_sequences) <= 0).all()


@given(shapes(), st.sampled_from([2, 4, 8]))
def test_ranks_hold_the_model_and_what_is_replicated(shape: dict[str, Any], tp: int) -> None:
    m = model_of(shape)
    one, many = kv_capacity(m, gpu(80), [1, tp]).weight_bytes
    assert float(one) == m.weight_bytes
    assert tp * many >= one * (1 - 1e-12)
    d = shape["d"]
    replicated = sum(2 * d + layer.get("experts", 0) * d for layer in shape["layers"]) + d
    copies = max(tp // shape["kv_heads"], 1) - 1
    replicated_kv = copies * len(shape["layers"]) * 2 * d * shape["head_dim"] * shape["kv_heads"]
    assert tp * many - one == pytest.approx(2 * ((tp - 1) * replicated + replicated_kv), rel=1e-9)


@given(shapes(), st.floats(1, 40), st.sampled_from([None, 2000]))
def test_smallest_tp_fits_and_no_smaller_one_does(shape: dict[str, Any], gib: float, seq_len: int | None) -> None:
    m = model_of(shape)
    sizes = valid_tp_sizes(m)
    found = kv_capacity(m, gpu(gib), list(sizes), seq_len=seq_len)
    fitting = [tp for tp, fits in zip(sizes, found.fits.tolist(), strict=True) if fits]
    assert set(found.smallest_tp_that_fits.tolist()) == {fitting[0] if fitting else 0}


@given(st.permutations(range(12)))
def test_an_element_does_not_depend_on_its_neighbours(order: Sequence[int]) -> None:
    arguments: dict[str, Any] = {
        "tp_size": np.array([1, 2, 4, 8] * 3),
        "pp_size": np.array([1, 2, 3] * 4),
        "memory_utilization": np.linspace(0.3, 0.95, 12),
        "kv_dtype": np.array(["bf16", "fp8", None] * 4, dtype=object),
        "seq_len": np.arange(1, 13) * 777,
    }
    whole = kv_capacity(model(), gpu(60), **arguments)
    shuffled = kv_capacity(model(), gpu(60), **{k: v[list(order)] for k, v in arguments.items()})
    single = kv_capacity(model(), gpu(60), **{k: v[order[0]] for k, v in arguments.items()})
    for name in ("num_kv_blocks", "max_sequences", "fits", "smallest_tp_that_fits", "weight_bytes"):
        np.testing.assert_array_equal(getattr(whole, name)[list(order)], getattr(shuffled, name))
        assert getattr(single, name).shape == ()
        assert getattr(single, name) == getattr(whole, name)[order[0]]


def test_arguments_broadcast_and_amounts_can_be_given() -> None:
    found = kv_capacity(model(), gpu(80), [[1], [2]], memory_utilization=[0.5, 0.8, 0.9])
    assert found.num_kv_blocks.shape == found.fits.shape == found.memory_utilization.shape == (2, 3)
    bare = kv_capacity(model(), gpu(80), memory_utilization=1.0, activation_bytes=[0, GIB], reserved_bytes=0)
    left = 80 * GIB - float(bare.weight_bytes[0])
    assert bare.num_kv_blocks.tolist() == [left // 2**21, (left - GIB) // 2**21]
    doubled = kv_capacity(model(), gpu(80), dp_size=2)
    with_comm = kv_capacity(model(), gpu(80), params=CapacityParams(framework_bytes=1.75 * GIB))
    assert int(doubled.num_kv_blocks) == 2 * int(with_comm.num_kv_blocks)
    assert kv_capacity(model(), gpu(80), []).num_kv_blocks.shape == (0,)


# --- what does not fit, and what is wrong


def test_what_does_not_fit_is_a_result() -> None:
    found = kv_capacity(ModelConfig(**LLAMA_70B), "L4", [1, 4])
    assert found.num_kv_blocks.tolist() == [0, 0]
    assert found.fits.tolist() == [False, False]
    assert found.smallest_tp_that_fits.tolist() == [8, 8]
    huge = kv_capacity(ModelConfig(**LLAMA_70B), gpu(0.1))
    assert int(huge.smallest_tp_that_fits) == 0
    assert "at no tp" in repr(huge)
    assert "needs tp 8" in repr(found)
    long = kv_capacity(model(), gpu(30), seq_len=[1000, 10**7])
    assert long.fits.tolist() == [True, False]
    assert long.num_kv_blocks[0] == long.num_kv_blocks[1] > 0


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"tp_size": 3}, "tp_size"),
        ({"tp_size": 64}, "tp_size"),
        ({"tp_size": [1, 0]}, "tp_size[1]"),
        ({"tp_size": 1.5}, "tp_size[0]"),
        ({"tp_size": "two"}, "tp_size"),
        ({"pp_size": 33}, "pp_size"),
        ({"ep_size": 3}, "ep_size"),
        ({"memory_utilization": 0}, "memory_utilization"),
        ({"memory_utilization": [0.9, 1.1]}, "memory_utilization[1]"),
        ({"memory_utilization": float("nan")}, "memory_utilization"),
        ({"memory_utilization": "all"}, "memory_utilization"),
        ({"activation_bytes": -1}, "activation_bytes"),
        ({"reserved_bytes": float("inf")}, "reserved_bytes"),
        ({"seq_len": 0}, "seq_len[0]"),
        ({"block_size": 0}, "block_size"),
        ({"tp_size": [1, 2], "memory_utilization": [0.7, 0.8, 0.9]}, "arguments"),
    ],
)
def test_bad_arguments(options: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        kv_capacity(model(), "h100_sxm", **options)
    assert caught.value.problems[0].where == where


def test_more_errors() -> None:
    with pytest.raises(UnknownNameError):
        kv_capacity(model(), "h100_sxm", kv_dtype="fp7")
    with pytest.raises(UnknownNameError):
        kv_capacity(model(), "h1000")
    with pytest.raises(UnknownNameError):
        kv_capacity(model(), "h100_sxm", weight_dtype=["bf16", "fp7"])
    with pytest.raises(MfuroofError):
        kv_capacity("no-such/model", "h100_sxm")
    with pytest.raises(InputError, match="hbm_bytes"):
        kv_capacity(model(), Hardware.from_figures("x", bf16_tflops_per_s=1, hbm_tb_per_s=1))
    with pytest.raises(InputError, match="6 key-value heads"):
        kv_capacity(model(num_attention_heads=24, num_key_value_heads=6, head_dim=128), gpu(80), 4)
    with pytest.raises(InputError) as caught:
        CapacityParams(
            max_batched_tokens=0,
            max_num_seqs=1.5,  # type: ignore[arg-type]
            activation_bytes=-1,
            comm_bytes=float("nan"),
            flat="yes",  # type: ignore[arg-type]
        )
    assert {p.where for p in caught.value.problems} == {
        *("max_batched_tokens", "max_num_seqs", "activation_bytes", "comm_bytes", "flat"),
    }


number = st.integers(-3, 100) | st.floats() | st.none() | st.text(max_size=3) | st.lists(st.floats(), max_size=3)
ARGUMENTS = ("tp_size", "dp_size", "memory_utilization", "seq_len", "kv_dtype", "block_size")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ARGUMENTS, number)))
def test_no_foreign_error(options: dict[str, Any]) -> None:
    try:
        found = kv_capacity(model(), "h100_sxm", **options)
    except MfuroofError:
        return
    repr(found)


# --- the record


def test_record_is_read_only_and_travels() -> None:
    found = kv_capacity(model(), "H100", [1, 2], seq_len=4096, kv_dtype="fp8")
    with pytest.raises(ValueError, match="read-only"):
        found.num_kv_blocks[0] = 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.block_size = 1  # type: ignore[misc]
    again: KvCapacity = pickle.loads(pickle.dumps(found))
    assert again.to_dict() == found.to_dict()
    table = found.to_arrow()
    assert table.num_rows == 2
    assert table.column("num_kv_blocks").to_pylist() == found.num_kv_blocks.tolist()
    assert table.column("kv_dtype").to_pylist() == ["fp8", "fp8"]
    assert table.column("weight_dtype").to_pylist() == [None, None]
    assert found.to_dict()["gpu"] == ["h100_sxm", "h100_sxm"]
    text = repr(found)
    assert f"{found.num_kv_blocks[1]:,}" in text
    assert "sequences" in text
    assert "sequences" not in repr(kv_capacity(model(), "H100"))
    assert "5 more" in repr(kv_capacity(model(), "H100", memory_utilization=np.linspace(0.5, 0.9, 25)))


def test_overridden_memory_counts() -> None:
    h100 = get_hardware("h100_sxm")
    less = kv_capacity(model(), dataclasses.replace(h100, hbm_bytes=h100.hbm_bytes / 2))
    assert int(less.num_kv_blocks) < int(kv_capacity(model(), h100).num_kv_blocks) / 2
    assert CapacityParams().changed() == {}
    assert CapacityParams.blis().changed()["flat"] is True
