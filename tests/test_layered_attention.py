"""Sparse, compressed and recurrent layers under the constant-MFU cost: work and traffic counted by hand."""

from __future__ import annotations

import dataclasses

import numpy.testing as npt
import pytest
from constant_cases import OURS, bind

from mfuroof.batch import StepBatch
from mfuroof.models import ModelConfig, get_model
from mfuroof.models.registry import entry

CONTEXTS = [0, 100, 127, 128, 2047, 2048, 50_000]
DECODE = StepBatch.uniform(decode_batch=3, decode_context=CONTEXTS)


def model_of(name, **changes):
    """Return a built-in model with 16-bit weights and cache."""
    config = {k: v for k, v in entry(name)[1].items() if k not in ("quantization_config", "expert_dtype")}
    return ModelConfig.from_hf(config | changes, name="plain")


@pytest.mark.parametrize("tp", [1, 4])
def test_selected_latents(tp):
    """DeepSeek-V3.2: 61 layers of 128 heads read 2048 latents of 576 numbers, which 64 heads of 128 choose of all."""
    bound = bind(model_of("deepseek-ai/DeepSeek-V3.2"), tp_size=tp)
    flops = [3 * 61 * (128 / tp * 2 * (576 + 512) * min(c + 1, 2048) + 2 * 64 * 128 * (c + 1)) for c in CONTEXTS]
    moved = [3 * 61 * (576 * 2 * min(c + 1, 2048) + (128 + 4) * (c + 1)) for c in CONTEXTS]
    npt.assert_allclose(bound.flops(DECODE)["attention"], flops, rtol=1e-12)
    npt.assert_allclose(bound.bytes_moved(DECODE)["kv_cache"], moved, rtol=1e-12)
    prompt = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=100)  # prefill attends to latents as well
    whole = 61 * 5050 * (128 / tp * 2 * (576 + 512) + 2 * 64 * 128)
    npt.assert_allclose(bound.flops(prompt)["attention"], whole, rtol=1e-12)


def test_compressed_history():
    """DeepSeek-V4: the last 128 tokens, and beside them an entry for every 4 (512 of them are chosen) or 128 tokens."""
    config = entry("deepseek-ai/DeepSeek-V4-Flash")[1]
    ratios = config["compress_ratios"][: config["num_hidden_layers"]]
    bound = bind(model_of("deepseek-ai/DeepSeek-V4-Flash"))
    pair, entry_bytes = 64 * 4 * 512, 512 * 2
    flops, moved = [], []
    for seen in (c + 1 for c in CONTEXTS):
        work = len(ratios) * pair * min(seen, 128) + ratios.count(128) * pair * seen / 128
        work += ratios.count(4) * (pair * min(seen, 512 * 4) / 4 + 2 * 64 * 128 * seen / 4)
        flops.append(3 * work)
        read = len(ratios) * entry_bytes * min(seen, 128) + ratios.count(128) * entry_bytes * seen / 128
        read += ratios.count(4) * (entry_bytes * min(seen, 512 * 4) / 4 + (128 + 4) * seen / 4)
        moved.append(3 * read)
    npt.assert_allclose(bound.flops(DECODE)["attention"], flops, rtol=1e-12)
    npt.assert_allclose(bound.bytes_moved(DECODE)["kv_cache"], moved, rtol=1e-12)


def matrices(model):
    """FLOPs of one token in the matrices of all layers, on one GPU."""
    each = ((s, m) for s in model.layers for m in model.modules(s))
    return sum(s.count * 2 * m.active_copies * m.out_features * m.in_features for s, m in each)


@pytest.mark.parametrize("tp", [1, 2])
def test_recurrent_states(tp):
    """Qwen3.5: 48 layers keep 48 heads of 128 x 128 in 32 bits and the inputs of a convolution of width 4."""
    model = get_model("Qwen/Qwen3.5-27B")
    bound = bind(model, tp_size=tp)
    state, conv = 48 * 128 * 128, (2 * 16 * 128 + 48 * 128) * 3
    kept = 48 * 2 * (4 * state + 2 * conv) / tp  # read and written
    cache = [16 * 2 * 4 / tp * 256 * 2 * (c + 1) for c in CONTEXTS]
    npt.assert_allclose(bound.bytes_moved(DECODE)["kv_cache"], [3 * (kept + c) for c in cache], rtol=1e-12)
    if tp == 1:
        expected = matrices(model) + 48 * (6 * state + 2 * conv)
        npt.assert_allclose(bound.flops(DECODE)["gemm"], 3 * expected, rtol=1e-12)


def test_state_space_layers_and_layers_without_attention():
    config = {
        "model_type": "nemotron_h", "hybrid_override_pattern": "M-M-", "num_hidden_layers": 4, "hidden_size": 256,
        "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
        "vocab_size": 1000, "mamba_num_heads": 8, "mamba_head_dim": 64, "ssm_state_size": 32, "n_groups": 2,
        "conv_kernel": 4,
    }  # fmt: skip
    model = ModelConfig.from_hf(config)
    state, conv = 8 * 64 * 32, (8 * 64 + 2 * 2 * 32) * 3
    for tp, ranks in ((1, 1), (2, 2), (4, 2)):  # two groups spread over two ranks at most
        bound = bind(model, tp_size=tp)
        assert (bound.flops(DECODE)["attention"] == 0).all()
        npt.assert_allclose(
            bound.bytes_moved(DECODE)["kv_cache"], 3 * 2 * 2 * (4 * state + 2 * conv) / ranks, rtol=1e-12
        )
    npt.assert_allclose(
        bind(model).flops(DECODE)["gemm"], 3 * (matrices(model) + 2 * (6 * state + 2 * conv)), rtol=1e-12
    )


def test_a_number_of_mlp_matrices_scales_what_comes_before_the_last():
    gated = bind(get_model("meta-llama/Meta-Llama-3.1-8B"))
    two = bind(get_model("meta-llama/Meta-Llama-3.1-8B"), dataclasses.replace(OURS, mlp_matrices=2))
    one = StepBatch.uniform(decode_batch=1)
    spared = gated.flops(one)["gemm"] - two.flops(one)["gemm"]
    npt.assert_allclose(spared, 32 * 2 * 4096 * 14336, rtol=1e-12)
    assert repr(two).startswith("BoundConstantMfu(compute, memory, comm, overhead; MFU 0.5 and 0.4")
