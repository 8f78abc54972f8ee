"""Recurrent layers: what a state costs does not depend on the context, and what stands in for what was not measured."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.testing as npt
import pytest

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.ops.recurrent import RecurrentShape
from mfuroof.ops.select import rows
from mfuroof.tables.store import load_tables

HYBRID = "Qwen/Qwen3.5-35B-A3B"
MAMBA = "nvidia/NVIDIA-Nemotron-3-Ultra-550B-A55B-BF16"
KDA = "moonshotai/Kimi-K3"
ROUNDING = 1e-12


@cache
def recurrent(model, gpu="h200_sxm", tp=1, engine="vllm", **params):
    run = mr.StepEvaluator(model, gpu, tp_size=tp, engine=engine, params=mr.CostParams(**params)).bound.work.run
    return next(x for x in run.attention if isinstance(x.shape, RecurrentShape)), {op.name: op for op in run.ops}


def test_a_measured_delta_net_is_convolution_and_state_kernel():
    layers, _ = recurrent(HYBRID, monotone=False, missing="raise")
    shape = layers.shape
    where = {"num_key_heads": shape.shared_heads, "num_value_heads": shape.heads, "phase": "decode"}
    held = {op: rows(load_tables("h200_sxm"), "gdn", op=op, **where) for op in ("conv", "core")}
    for i, batch in enumerate(held["core"]["batch_size"]):
        at = int(np.log2(batch))
        conv = held["conv"]["latency_s"][list(held["conv"]["batch_size"]).index(batch)]
        together = conv + held["core"]["latency_s"][i]
        expected = max(together, layers.decode_roofline_s()[at, 0])
        assert layers.decode.time_s[at, 0] == pytest.approx(expected, rel=0.05)  # a running maximum over batches
    assert (layers.decode.source == Source.EXACT).all()


@pytest.mark.parametrize("model", [HYBRID, MAMBA, KDA])
def test_the_context_is_free(model):
    layers, _ = recurrent(model, tp=8 if model != HYBRID else 1)
    npt.assert_allclose(layers.decode.time_s, np.repeat(layers.decode.time_s[:, :1], 22, axis=1), rtol=1e-9)
    moved = layers.shape.bytes_moved(np.array([0.0, 1.0, 1e6]), 16.0)
    npt.assert_array_equal(moved, moved[0])
    assert layers.shape.bytes_moved(np.array([5.0]), 0.0)[0] == 0.0  # no request, no state


@pytest.mark.parametrize("tp", [1, 8])
def test_a_first_token_of_context_makes_no_prompt_faster(tp):
    """States and grouped-query attention together, prompts of one token and many of them included."""
    new, batch = (x.ravel() for x in np.meshgrid(np.r_[1:40, 63:67, 511:514, 4095:4098], [1, 2, 8, 64, 300]))
    for gpu in ("h100_sxm", "b200_sxm"):
        ev = mr.StepEvaluator(MAMBA, gpu, tp_size=tp)
        none, one = (
            ev.evaluate(mr.StepBatch.uniform(0, 0, batch, new, context)).attention_prefill_s for context in (0, 1)
        )
        assert (one >= none * (1 - ROUNDING)).all()


def test_kimi_delta_attention_is_a_gated_delta_net_of_its_state():
    layers, _ = recurrent(KDA, tp=8)
    assert (layers.shape.heads, layers.shape.head_dim, layers.shape.state_dim) == (12, 128, 128)
    assert (layers.decode.source == Source.SUBSTITUTED).all()
    model = mr.get_model(KDA)
    as_gated = tuple(
        replace(s, attention=replace(s.attention, linear=replace(s.attention.linear, variant="gdn")))
        if s.attention.linear
        else s
        for s in model.layers
    )
    gated, _ = recurrent(replace(model, layers=as_gated), tp=8)
    npt.assert_array_equal(layers.decode.time_s, gated.decode.time_s)
    npt.assert_array_equal(layers.prefill.time_s, gated.prefill.time_s)


def test_products_of_recurrent_layers_are_their_matrices():
    """FLOPs of all ranks: the matrices of the model, those that every rank runs in full once a rank."""
    for name, tp in ((HYBRID, 2), (KDA, 8), (MAMBA, 8)):
        model = mr.get_model(name)
        run = mr.StepEvaluator(model, "h200_sxm", tp_size=tp).bound.work.run
        per_token = {
            op: sum(o.count * o.flops_per_count for o in run.ops if o.name == op)
            for op in ("qkv_gemm", "o_gemm", "q_up_gemm", "gate_gemm", "selector_gemm")
        }
        expected = 0.0
        for layer in model.layers:
            for m in model.modules(layer):
                if m.kind in ("qkv", "o", "mla", "linear_attention", "mamba") and not m.name.endswith("kv_b_proj"):
                    copies = 1.0 if m.shard == "none" else 1.0 / tp
                    expected += layer.count * 2.0 * m.out_features * m.in_features * copies
        replicated = 0.01 if name == MAMBA else 1e-9  # its two KV heads are copied to eight ranks
        assert sum(per_token.values()) == pytest.approx(expected, rel=replicated), name


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_mamba_stands_on_delta_nets_and_says_so(engine):
    layers, _ = recurrent(MAMBA, tp=8, engine=engine)
    assert (layers.decode.source == Source.SUBSTITUTED).all()
    assert (layers.decode.time_s >= layers.decode_roofline_s() * (1 - ROUNDING)).all()
    assert (np.diff(layers.decode.time_s[:, 0]) >= 0).all()
