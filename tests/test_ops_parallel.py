"""Laws of experts and of ranks: what shards conserve, what a further rank may not raise, and what binds."""

from __future__ import annotations

import itertools
import math
from functools import cache

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import LLAMA_70B, counts

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MfuroofError
from mfuroof.ops.comm import collective_curve
from mfuroof.ops.curves import MAX_TOKENS, Curve
from mfuroof.ops.mlp import ExpertsOp
from mfuroof.ops.moe import ExpertsShape, MoeTable, distinct_experts
from mfuroof.ops.rooflines import GemmRoofline
from mfuroof.parallel import Parallel

ROUNDING = 1e-12
MOE = "Qwen/Qwen3-30B-A3B"
LATENT = "deepseek-ai/DeepSeek-V3"
HYBRID = "Qwen/Qwen3.5-35B-A3B"
STEPS = mr.StepBatch.uniform([1, 64, 0, 700], [99, 3000, 0, 20], [0, 2, 1, 0], 300, [0, 50, 0, 0])
RATE = GemmRoofline(1e12, 1e9, 2.0, 2.0)
mixtures = st.tuples(st.integers(1, 512), st.integers(1, 64)).filter(lambda e: e[1] <= e[0])


@cache
def bound(model, gpu="h200_sxm", **degrees):
    return mr.StepEvaluator(model, gpu, **degrees, params=mr.CostParams(missing="roofline"))


# ------------------------------------------------------------------ experts


@given(mixtures, counts(100_000, minimum=1))
def test_distinct_experts_match_the_definition_and_its_bounds(mixture, tokens):
    experts, chosen = mixture
    found = float(distinct_experts(np.array([tokens]), experts, chosen)[0])
    assert found == pytest.approx(naive_step.distinct_experts(experts, chosen, tokens), rel=1e-9)
    assert chosen * (1 - ROUNDING) <= found <= min(chosen * tokens, experts) * (1 + ROUNDING)
    assert found <= float(distinct_experts(np.array([tokens + 1]), experts, chosen)[0])


@given(mixtures, st.integers(0, 4), st.integers(0, 4), counts(10_000, minimum=1))
def test_shards_of_experts_add_up(mixture, tp, ep, tokens):
    """Rank by rank, FLOPs, weights and roofline of experts are a share of those of one rank, load in balance."""
    whole = ExpertsShape(*mixture, 256, 512, 1, 1)
    part = ExpertsShape(*mixture, 256, 512, 2**tp, 2**ep)
    ranks, at = 2 ** (tp + ep), np.array([float(tokens)])
    assert part.flops_per_token(3) * ranks == pytest.approx(whole.flops_per_token(3), rel=ROUNDING)
    npt.assert_allclose(part.weight_bytes(at, 3, 1.5) * ranks, whole.weight_bytes(at, 3, 1.5), rtol=ROUNDING)
    npt.assert_allclose(part.roofline_time_s(at, 3, RATE) * ranks, whole.roofline_time_s(at, 3, RATE), rtol=ROUNDING)


def experts_table(**changes):
    """Two measured shapes, of 8 and of 64 experts, both at 40 % of their roofline."""
    shapes = (ExpertsShape(8, 2, 256, 512, 1, 1), ExpertsShape(64, 4, 256, 512, 1, 1))
    tokens = tuple(2.0 ** np.arange(12) for _ in shapes)
    times = tuple(s.roofline_time_s(t, 3, RATE) / 0.4 for s, t in zip(shapes, tokens, strict=True))
    measured = {"shapes": shapes, "tokens": tokens, "latency_s": times, "measured_on": RATE, "wanted": RATE}
    return MoeTable(**measured | changes)


def test_measured_experts_are_read_verbatim_and_others_borrow_utilisation():
    table = experts_table()
    for shape, tokens, times in zip(table.shapes, table.tokens, table.latency_s, strict=True):
        found = table.curve(shape, 3, 1.0)
        npt.assert_allclose(found.at(tokens), times, rtol=ROUNDING)
        assert (found.source_at(tokens) == Source.EXACT).all()
    other = ExpertsShape(32, 4, 512, 256, 2, 1)
    found = table.curve(other, 3, 1.0)
    at = 2.0 ** np.arange(10)
    npt.assert_allclose(found.at(at), other.roofline_time_s(at, 3, RATE) / 0.4, rtol=1e-6)
    assert (found.source_at(at) >= Source.SUBSTITUTED).all()


def test_pooled_tokens_are_those_that_enter():
    """A rank that pools the tokens of four data-parallel ranks reads the table at four times its own."""
    table, at = experts_table(), 2.0 ** np.arange(8)
    npt.assert_allclose(
        table.curve(table.shapes[0], 3, 4.0).at(at), table.curve(table.shapes[0], 3, 1.0).at(4 * at), rtol=ROUNDING
    )


def test_a_slower_gpu_holds_the_utilisation_of_experts():
    slow = GemmRoofline(RATE.peak_flops_per_s / 3, RATE.hbm_bytes_per_s / 3, 2.0, 2.0)
    here, there = experts_table(), experts_table(wanted=slow, stand_in=True)
    for shape in here.shapes:
        npt.assert_allclose(there.curve(shape, 3, 1.0).time_s, 3 * here.curve(shape, 3, 1.0).time_s, rtol=1e-9)
        assert (there.curve(shape, 3, 1.0).source >= Source.SUBSTITUTED).all()


# ------------------------------------------------------------------ ranks

SHARDS = [
    {"tp_size": 2},
    {"tp_size": 4, "ep_size": 4},
    {"tp_size": 4, "ep_size": 2},
    {"tp_size": 2, "dp_size": 2, "ep_size": 4},
    {"dp_size": 4, "ep_size": 4},
    {"tp_size": 4, "pp_size": 2},
]


@pytest.mark.parametrize("degrees", SHARDS, ids=str)
@pytest.mark.parametrize("model", [MOE, LATENT])
def test_expert_ranks_conserve_flops_and_weights(model, degrees):
    """All ranks together do the experts' work once; data-parallel ranks bring their own tokens."""
    ranks, dp = degrees.get("tp_size", 1) * degrees.get("dp_size", 1), degrees.get("dp_size", 1)
    tokens = np.array([1.0, 17.0, 4096.0])
    alone, shared = (
        {op.name: op for op in bound(model, **d).bound.work.run.ops}["experts"] for d in ({}, degrees)
    )
    assert isinstance(shared, ExpertsOp)
    assert shared.flops_per_count * ranks == pytest.approx(dp * alone.flops_per_count, rel=ROUNDING)
    activations = [op.bytes_per_count * tokens for op in (alone, shared)]
    npt.assert_allclose(
        (shared.bytes_at(tokens) - activations[1]) * ranks, alone.bytes_at(dp * tokens) - dp * activations[0], rtol=1e-9
    )


@pytest.mark.parametrize("model", [MOE, LATENT, HYBRID, LLAMA_70B])
def test_a_further_rank_raises_no_work(model):
    """Per rank: FLOPs and bytes of every part fall or hold when tensor or expert ranks are added."""
    chains = [[{"tp_size": 1}, {"tp_size": 2}, {"tp_size": 4}, {"tp_size": 8}]]
    if model != LLAMA_70B:
        chains.append([{"tp_size": 4, "ep_size": e} for e in (1, 2, 4)])
    for degrees in chains:
        results = [bound(model, **d).evaluate(STEPS) for d in degrees]
        for fewer, more in itertools.pairwise(results):
            for part, work in fewer.op_flops.items():
                assert (more.op_flops[part] <= work * (1 + ROUNDING)).all(), part
            for part, moved in fewer.op_bytes.items():
                if part != "all_reduce":
                    assert (more.op_bytes[part] <= moved * (1 + ROUNDING)).all(), part


def test_replicated_kv_heads_are_read_by_every_rank():
    """Beyond eight ranks each holds one of eight KV heads whole: less query work, the same cache traffic."""
    params = mr.CostParams(missing="roofline")
    eight, thirty_two = (
        mr.StepEvaluator(LLAMA_70B, "h100_sxm", tp_size=tp, params=params).evaluate(STEPS) for tp in (8, 32)
    )
    npt.assert_allclose(thirty_two.op_flops["attention_decode"] * 4, eight.op_flops["attention_decode"], rtol=ROUNDING)
    queries = 4 * 128 * 80 * (8 - 2)  # bytes a token of six query heads, in and out, over 80 layers
    tokens = np.array([1, 64, 0, 700])
    npt.assert_allclose(
        eight.op_bytes["attention_decode"] - thirty_two.op_bytes["attention_decode"], queries * tokens, rtol=1e-9
    )


@pytest.mark.parametrize("model", [MOE, LATENT])
def test_pipeline_stages_only_add_sends(model):
    one, four = (bound(model, tp_size=4, pp_size=p).evaluate(STEPS) for p in (1, 4))
    npt.assert_allclose(four.step_time_s - four.pp_send_s, one.step_time_s, rtol=0.02)  # the sum's repair may differ
    assert (four.pp_send_s > 0).all()


def test_one_rank_does_not_talk():
    for model in (MOE, LATENT, LLAMA_70B):
        ops = bound(model).bound.work.run.ops
        assert not [op.name for op in ops if op.resource == "comm"]
    talk = [op.name for op in bound(MOE, tp_size=2, dp_size=2, pp_size=2).bound.work.run.ops if op.resource == "comm"]
    assert talk == ["all_reduce", "all_gather", "reduce_scatter", "pp_send"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_communication_rises_with_the_message(engine):
    """Measured collectives fall by up to a tenth in places; those of a bound model do not."""
    for degrees in ({"tp_size": 2}, {"tp_size": 8}, {"tp_size": 4, "dp_size": 2, "ep_size": 8}):
        for op in bound(MOE, engine=engine, **({"tp_size": 1} | degrees)).bound.work.run.ops:
            if op.resource == "comm":
                counts = np.unique(np.concatenate([op.curve.knots, 1.5 * op.curve.knots, [2.0 * MAX_TOKENS]]))
                assert (np.diff(op.curve.at(counts)) >= 0).all(), op.name
                assert (op.curve.at(counts) > 0).all()


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_rising_curves_rise_and_keep_what_rises(times):
    knots = np.arange(1.0, len(times) + 1)
    found = Curve(knots, np.array(times, float), 0.0, np.zeros(knots.size, np.uint8)).rising()
    assert (np.diff(found.time_s) >= 0).all()
    assert min(times) <= found.time_s[0] and found.time_s[-1] <= max(times)
    if times == sorted(times):
        npt.assert_array_equal(found.time_s, times)


def test_unknown_times_stay_unknown():
    gap = Curve(np.array([1.0, 2.0]), np.array([np.nan, 1.0]), 0.0, np.zeros(2, np.uint8))
    assert math.isnan(gap.rising().time_s[0])


@given(st.integers(2, 9), st.sampled_from([1, 1024, 8192]))
def test_the_smallest_message_is_a_floor(sizes, elements):
    message, time = 2.0 ** np.arange(7, 7 + sizes), 1e-6 * np.arange(5, 5 + sizes)
    found = collective_curve(message, time, elements)
    at = np.array([1.0, 8.0, 64.0, 3000.0])
    assert (found.at(at) >= time[0] * (1 - ROUNDING)).all()


# ------------------------------------------------------------------ what binds


def degrees_of(tps, pps, dps):
    for tp, pp, dp in itertools.product(tps, pps, dps):
        for ep in (1, 2, 3, 4, 8, 16):
            yield {"tp_size": tp, "pp_size": pp, "dp_size": dp, "ep_size": ep}


def check_degrees(model, degrees):
    """Bind, or refuse for a reason that is in the numbers of the model."""
    m, tp, ep, ranks = mr.get_model(model), degrees["tp_size"], degrees["ep_size"], 1
    ranks = tp * degrees["dp_size"]
    legal = ranks % ep == 0
    for layer in m.layers:
        a, f = layer.attention, layer.mlp
        heads = a.linear.num_value_heads if a.linear else a.mamba.num_heads if a.mamba else a.num_attention_heads
        groups = a.linear.num_key_heads if a.linear else a.mamba.n_groups if a.mamba else a.num_key_value_heads
        legal &= heads % tp == 0 and (not groups or groups % tp == 0 or tp % groups == 0)
        legal &= f.intermediate_size % tp == 0 and f.shared_intermediate_size % tp == 0
        if f.kind == "moe":
            legal &= f.num_experts % ep == 0 and f.moe_intermediate_size % max(ranks // ep, 1) == 0
    if not legal:
        with pytest.raises(InputError) as caught:
            bound(model, **degrees)
        assert caught.value.problems
        return
    found = bound(model, **degrees).step_time(STEPS)
    assert np.isfinite(found).all()
    assert (found > 0).all()


@pytest.mark.parametrize("degrees", list(degrees_of([1, 4, 5, 8], [1], [1, 2]))[::3], ids=str)
def test_legal_degrees_bind_and_illegal_ones_say_why(degrees):
    check_degrees(MOE, degrees)


@pytest.mark.slow
@pytest.mark.parametrize("model", [MOE, HYBRID, "nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "openai/gpt-oss-20b"])
def test_all_degrees_bind_or_say_why(model):
    for degrees in degrees_of([1, 2, 3, 8, 16], [1, 2], [1, 2, 4]):
        check_degrees(model, degrees)


@pytest.mark.parametrize(
    ("model", "tp", "part"),
    [
        (HYBRID, 64, "recurrent heads"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3, "recurrent"),
        ("deepseek-ai/DeepSeek-V4-Flash", 16, "output groups"),
        ("Qwen/Qwen3-0.6B", 64, "attention heads"),
    ],
)
def test_every_kind_of_layer_says_how_far_it_divides(model, tp, part):
    with pytest.raises(MfuroofError, match=part):
        mr.StepEvaluator(model, "h200_sxm", tp_size=tp)


def test_degrees_that_do_not_fit_one_another():
    with pytest.raises(InputError, match="ep_size"):
        Parallel(tp_size=2, ep_size=3)
    assert Parallel(tp_size=4, dp_size=2, ep_size=4).moe_tp_size == 2
