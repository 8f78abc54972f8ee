"""Sparse and compressed attention: measured blocks come back, the two parts grow as they should, stand-ins say so."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import counts, size

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.models import ModelConfig
from mfuroof.ops import sparse_block
from mfuroof.ops.compressed import CompressedShape
from mfuroof.ops.dsa import SparseShape
from mfuroof.ops.select import rows
from mfuroof.ops.selector import ScoreShape
from mfuroof.tables.store import load_tables

V32, GLM, SHARED = "deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5", "zai-org/GLM-5.2"
FLASH, PRO, BLOCKS = "deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V4-Pro", "MiniMaxAI/MiniMax-M3"
ALL = (V32, GLM, SHARED, FLASH, PRO, BLOCKS)
TOPK = 2048
ROUNDING = 1e-12


@cache
def bound(model=V32, gpu="h200_sxm", engine="vllm", tp=8, **params):
    return mr.StepEvaluator(model, gpu, tp_size=tp, engine=engine, params=mr.CostParams(**params))


def layers_of(shape, *where, **params):
    return [x for x in bound(*where, **params).bound.work.run.attention if type(x.shape) is shape]


def block_s(evaluator, batch, count):
    """Seconds of one attention block without what engines run beside it: attention proper and its products."""
    found = evaluator.evaluate(batch)
    c = batch.columns
    tokens = np.asarray(c.decode_batch + c.prefill_batch * c.prefill_new_tokens, float)
    names = ("qkv_gemm", "q_up_gemm", "o_gemm", "selector_gemm")
    ops = [op for op in evaluator.bound.work.run.ops if op.name in names]
    gemms = sum(op.count * op.curve.at(tokens) for op in ops)
    return (found.attention_decode_s + found.attention_prefill_s + gemms) / count


# ------------------------------------------------------------------ measured blocks


@pytest.mark.parametrize(("model", "architecture", "heads"), [(V32, "DeepseekV32", 16), (GLM, "GlmMoeDsa", 8)])
@pytest.mark.parametrize("engine", ["vllm", "trtllm"])
def test_decode_blocks_come_back(model, architecture, heads, engine):
    """Products out and in again give the measured block, but for what monotone repair moves (falls of up to 10 %).

    TensorRT-LLM takes 1.7 times as long at 2,049 tokens as at 4,097: those rows are capped at 1.1 times.
    """
    gemm = mr.get_model(model).module_dtype("mla")
    found = rows(
        load_tables("h200_sxm", engine), "dsa_module_decode", architecture=f"{architecture}ForCausalLM",
        gemm_dtype=gemm, attn_dtype="bf16", kv_dtype="bf16", num_attention_heads=heads,
    )  # fmt: skip
    batch = mr.StepBatch.uniform(found["batch_size"], found["kv_len"] - 2)
    ours = block_s(bound(model, engine=engine), batch, mr.get_model(model).num_hidden_layers)
    error = np.abs(ours / found["latency_s"] - 1.0)[found["kv_len"] > 3]
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.9) < (0.06 if engine == "vllm" else 0.12)


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_long_prefill_blocks_come_back(engine):
    """Where the GPU is full; short prompts of vLLM and SGLang were timed launch by launch."""
    found = rows(
        load_tables("h200_sxm", engine), "dsa_module_prefill", architecture="DeepseekV32ForCausalLM", context_len=0,
        gemm_dtype=mr.get_model(V32).module_dtype("mla") if engine != "sglang" else "fp8_block",
        attn_dtype="bf16", kv_dtype="bf16", num_attention_heads=16,
    )  # fmt: skip
    full = found["latency_s"] > 2.5e-3
    full &= np.log2(found["new_tokens"]) % 1 == 0
    batch = mr.StepBatch.uniform(0, 0, found["batch_size"][full], found["new_tokens"][full])
    error = np.abs(block_s(bound(engine=engine), batch, 61) / found["latency_s"][full] - 1.0)
    assert np.median(error) < 0.03
    assert error.max() < 0.15


def test_short_prompts_are_no_dearer_than_decode_batches():
    """A prefill block of vLLM takes 1.4 ms however short; the same queries in decode take a fifth of that."""
    prompts = np.array([1, 4, 16, 64])
    ours = block_s(bound(), mr.StepBatch.uniform(0, 0, prompts, 16), 61)
    decode = block_s(bound(), mr.StepBatch.uniform(prompts * 16, 7), 61)
    assert (ours < 1.15 * decode).all()
    assert (ours < 0.6e-3).all()


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "worst"), [("h200_sxm", 0.35), ("b200_sxm", 0.25)])
def test_chunks_behind_a_prefix_are_near_the_measured(gpu, worst):
    """SGLang's table holds chunks behind 2 k to 128 k tokens; of these only w and c of single prompts were used.

    The lattice reads a chunk by its share of a prompt's area, where SGLang's kernel pays for the whole choice.
    """
    found = rows(
        load_tables(gpu, "sglang"), "dsa_module_prefill", architecture="DeepseekV32ForCausalLM",
        gemm_dtype="fp8_block", attn_dtype="bf16", kv_dtype="bf16", num_attention_heads=16,
    )  # fmt: skip
    use = (found["latency_s"] > 2.5e-3) & (found["batch_size"] <= 4) & (found["context_len"] >= TOPK)
    batch, new, context = (found[name][use] for name in ("batch_size", "new_tokens", "context_len"))
    ours = block_s(bound(gpu=gpu, engine="sglang"), mr.StepBatch.uniform(0, 0, batch, new, context), 61)
    error = np.abs(ours / found["latency_s"][use] - 1.0)
    assert use.sum() >= 30
    assert np.median(error) < 0.15
    assert error.max() < worst


# ------------------------------------------------------------------ how the parts grow


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_attention_reads_its_choice_and_scores_read_everything(engine):
    (attend,), (scores,) = layers_of(SparseShape, engine=engine), layers_of(ScoreShape, engine=engine)
    assert (attend.count, scores.count, attend.shape.window, scores.shape.window) == (61, 61, TOPK, 0)
    beyond = attend.decode.time_s[:-1, 11:-1]  # the last octaves are shaped by what goes on for ever
    npt.assert_allclose(beyond, np.repeat(beyond[:, :1], beyond.shape[1], axis=1), rtol=1e-6)
    inside = np.s_[:-1, :11]  # up to the choice the scores are part of the other times, but never below their roofline
    most = np.maximum(scores.decode_roofline_s() * (1 + 1e-9), 0.05 * attend.decode.time_s)
    assert (scores.decode.time_s[inside] <= most[inside]).all()
    assert (np.diff(scores.decode.time_s[5, 12:]) > 0).all()


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
def test_beyond_the_longest_prompt_only_scores_grow_with_the_square(engine):
    (attend,), (scores,) = layers_of(SparseShape, engine=engine), layers_of(ScoreShape, engine=engine)
    longest = {"sglang": 8192}.get(engine, 32768)
    lengths = 2.0 ** np.arange(22)
    after = (lengths > longest) & (lengths < 2**20)  # the last octaves are shaped by what goes on for ever
    above = attend.prefill.time_s[0] - attend.prefill.launch_s[0]
    npt.assert_allclose(
        above[after] / above[lengths == longest], (lengths[after] - TOPK / 2) / (longest - TOPK / 2), rtol=0.02
    )
    square = scores.prefill.time_s[0] / lengths**2
    npt.assert_allclose(square[after], square[lengths == longest][0], rtol=0.02)


def test_long_contexts_cost_less_than_dense_attention():
    """The point of it: 64 requests of 60,000 tokens decode in well under half the attention time of the dense model."""
    far = mr.StepBatch.uniform(64, [60_000, 120_000])
    sparse, dense = (bound(m).evaluate(far).attention_decode_s for m in (V32, "deepseek-ai/DeepSeek-V3"))
    assert (sparse < 0.5 * dense).all()


@given(st.lists(st.tuples(counts(64, 1), counts(20_000)), min_size=1, max_size=5), st.integers(1, 5))
def test_work_of_sparse_attention(requests, cut):
    """Per query: all keys up to the choice, and one score for every key; chunks add up to the prompt."""
    ev = bound(V32)
    batch = mr.StepBatch.uniform(*(np.array(x) for x in zip(*requests, strict=True)))
    number, kv = (np.array(x, float) for x in zip(*requests, strict=True))
    kv = kv + 1
    attend, scores = 2 * 16 * (2 * 512 + 64), 2 * 64 * 128
    expected = 61 * number * (attend * np.minimum(kv, TOPK) + scores * kv)
    npt.assert_allclose(ev.evaluate(batch).op_flops["attention_decode"], expected, rtol=ROUNDING)
    whole = ev.evaluate(mr.StepBatch.uniform(0, 0, 1, cut * 1500)).op_flops["attention_prefill"]
    chunks = mr.StepBatch.uniform(0, 0, 1, np.full(cut, 1500), 1500 * np.arange(cut))
    npt.assert_allclose(ev.evaluate(chunks).op_flops["attention_prefill"].sum(), whole[0], rtol=1e-9)


def test_layers_without_a_selector_run_attention_alone():
    attend, scores = layers_of(SparseShape, SHARED), layers_of(ScoreShape, SHARED)
    assert sorted(x.count for x in attend) == [21, 57]
    assert [x.count for x in scores] == [21]
    own, shared = sorted(attend, key=lambda x: x.count)
    assert (shared.decode.time_s[:, 11] <= own.decode.time_s[:, 11]).all()
    products = [op for op in bound(SHARED).bound.work.run.ops if op.name == "selector_gemm"]
    assert {op.count for op in products} <= {3, 18}
    model = mr.get_model(SHARED)
    groups = {g.num_layers: g.index_bytes for g in model.kv_layout.groups}
    assert groups == {21: 132.0, 57: 0.0}


# ------------------------------------------------------------------ stand-ins


def test_heads_between_measured_numbers_are_mixed(monkeypatch):
    """Leaving 16 heads out and reading them between 8 and 32 errs little: attention pads its heads to 64."""
    measured = bound(V32, tp=8).bound.work.run.attention
    kept = sparse_block._Block.known_heads
    monkeypatch.setattr(sparse_block._Block, "known_heads", lambda self: np.setdiff1d(kept(self), [16]))
    between = mr.StepEvaluator(V32, "h200_sxm", tp_size=8).bound.work.run.attention
    error = np.abs(sum(x.decode.time_s for x in between) / sum(x.decode.time_s for x in measured) - 1.0)[:11, 2:18]
    assert np.median(error) < 0.02
    assert error.max() < 0.12
    assert all((x.decode.source >= Source.SUBSTITUTED).all() for x in between)


def test_latent_heads_between_measured_numbers_are_mixed():
    """Twelve heads a rank, as Kimi-K3 has them, lie between eight and sixteen of the same model."""
    model = mr.get_model("deepseek-ai/DeepSeek-V3")

    def latent(heads):
        layers = tuple(
            replace(x, attention=replace(x.attention, num_attention_heads=8 * heads, num_key_value_heads=8 * heads))
            for x in model.layers
        )
        ev = mr.StepEvaluator(replace(model, layers=layers), "h200_sxm", tp_size=8)
        return ev.bound.work.run.attention[0].decode

    eight, twelve, sixteen = (latent(heads) for heads in (8, 12, 16))
    inside = np.s_[:11, 1:17]
    middle = 0.5 * (eight.time_s + sixteen.time_s)
    npt.assert_allclose(twelve.time_s[inside], middle[inside], rtol=0.02)  # each is repaired on its own
    assert (twelve.source >= Source.SUBSTITUTED).all()
    assert (eight.source < Source.SUBSTITUTED).any()


def test_a_gpu_without_sparse_blocks_takes_dense_ones_cut_to_the_choice():
    attend, scores = layers_of(SparseShape, V32, "l40s"), layers_of(ScoreShape, V32, "l40s")
    dense = mr.StepEvaluator("deepseek-ai/DeepSeek-V3", "l40s", tp_size=8).bound.work.run.attention
    npt.assert_allclose(attend[0].decode.time_s[:12, 2:11], dense[0].decode.time_s[:12, 2:11], rtol=0.02)  # repairs
    assert (attend[0].decode.source >= Source.SUBSTITUTED).all()
    assert (scores[0].decode.source == Source.SUBSTITUTED).all()


@pytest.mark.parametrize("model", [FLASH, BLOCKS, "moonshotai/Kimi-K3"])
def test_relatives_stand_in_only_where_they_may(model):
    with pytest.raises(MissingTableError, match="no measured table"):
        mr.StepEvaluator(model, "h200_sxm", tp_size=8, params=mr.CostParams(transfer=False))
    steps = mr.StepBatch.uniform([1, 0], 500, [0, 1], 300)
    bare = mr.StepEvaluator(model, "h200_sxm", tp_size=8, params=mr.CostParams(transfer=False, missing="roofline"))
    assert (bare.evaluate(steps).source == Source.ROOFLINE).all()
    left_open = mr.StepEvaluator(model, "h200_sxm", tp_size=8, params=mr.CostParams(transfer=False, missing="nan"))
    assert np.isnan(left_open.step_time(steps)).all()


@pytest.mark.parametrize("topk", [512, 1024, 4096])
def test_another_choice_scales_what_attention_reads(topk):
    """Decode reads the measured block at as many tokens; a prompt pays for its share of the query-key pairs."""
    model = mr.get_model(V32)
    changed = [replace(x.attention, indexer=replace(x.attention.indexer, topk=topk)) for x in model.layers]
    layers = tuple(replace(x, attention=a) for x, a in zip(model.layers, changed, strict=True))
    ev = mr.StepEvaluator(replace(model, layers=layers), "h200_sxm", tp_size=8)
    (found,) = (x for x in ev.bound.work.run.attention if type(x.shape) is SparseShape)
    (own,) = layers_of(SparseShape)
    assert found.shape.window == topk
    assert (found.decode.source >= Source.SUBSTITUTED).all()
    column = int(np.log2(min(topk, TOPK)))
    npt.assert_allclose(found.decode.time_s[:11, :column], own.decode.time_s[:11, :column], rtol=0.02)  # repairs
    if topk < TOPK:
        npt.assert_allclose(found.decode.time_s[:11, 15], own.decode.time_s[:11, column], rtol=0.02)
        above = [(x.prefill.time_s - x.prefill.launch_s[:, None])[3, 15] for x in (found, own)]
        pairs = [w * (2**15 - w / 2) for w in (topk, TOPK)]
        share = above[0] / above[1] * pairs[1] / pairs[0]
        assert 0.95 < share < 1.25  # the time per token of a short prompt, launches in it, is not let fall
    else:
        assert (found.decode.time_s[:11, 12:] > own.decode.time_s[:11, 12:]).all()


def test_measured_sparse_blocks_need_no_relative():
    strict, free = bound(V32, transfer=False), bound(V32)
    for a, b in zip(strict.bound.work.run.attention, free.bound.work.run.attention, strict=True):
        npt.assert_array_equal(a.decode.time_s, b.decode.time_s)
    with pytest.raises(MissingTableError, match=r"sparse attention block with 16 heads on l40s.*transfer=True"):
        bound(V32, "l40s", transfer=False)


def test_half_the_bandwidth_makes_no_part_faster():
    slow = replace(mr.get_hardware("h200_sxm"), hbm_bytes_per_s=mr.get_hardware("h200_sxm").hbm_bytes_per_s / 2)
    steps = mr.StepBatch.uniform([1, 64, 0], [50_000, 9000, 0], [0, 1, 2], 700, [0, 5000, 0])
    for model in (V32, FLASH, BLOCKS):
        here, there = bound(model).evaluate(steps), mr.StepEvaluator(model, slow, tp_size=8).evaluate(steps)
        assert (there.step_time_s >= here.step_time_s).all()
        assert (there.step_time_s <= 2.001 * here.step_time_s).all()


def test_compressed_layers_have_a_window_a_history_and_a_selector():
    parts = [
        (x.count, type(x.shape).__name__, x.shape.window, getattr(x.shape, "ratio", 1))
        for x in bound(FLASH).bound.work.run.attention
    ]
    assert parts == [
        (2, "CompressedShape", 128, 1),
        (21, "CompressedShape", 128, 1), (21, "CompressedShape", 2048, 4), (21, "ScoreShape", 0, 4),
        (20, "CompressedShape", 128, 1), (20, "CompressedShape", 0, 128),
    ]  # fmt: skip
    for x in bound(FLASH).bound.work.run.attention:
        assert (x.decode.source >= Source.SUBSTITUTED).all()
        assert (x.prefill.source >= Source.SUBSTITUTED).all()


def test_compressed_history_is_chosen_or_grows_slowly():
    """Of four tokens an entry 512 are read and no more, from 2,048 tokens on; of 128 all."""
    by_ratio = {x.shape.ratio: x for x in layers_of(CompressedShape, FLASH) if x.shape.ratio > 1}
    chosen, every = by_ratio[4].decode.time_s[:8], by_ratio[128].decode.time_s[:8]
    npt.assert_allclose(chosen[:, 11:20], np.repeat(chosen[:, 11:12], 9, axis=1), rtol=1e-6)
    assert (chosen[:, 11] > chosen[:, 7]).all()
    assert (every[:, 20] > every[:, 16]).all()


def test_work_of_compressed_attention():
    """Per query: 128 tokens, one entry of 4 (at most 512) or all of 128, and one score of 4; each entry 512 wide."""
    kv = np.array([1.0, 100, 1000, 8192, 100_000])
    found = bound(FLASH).evaluate(mr.StepBatch.uniform(3, kv.astype(int) - 1)).op_flops["attention_decode"]
    per_entry = 4 * 8 * 512
    near, chosen, every = np.minimum(kv, 128), np.minimum(kv / 4, 512), kv / 128
    expected = 3 * (43 * per_entry * near + 21 * (per_entry * chosen + 2 * 64 * 128 * kv / 4) + 20 * per_entry * every)
    npt.assert_allclose(found, expected, rtol=ROUNDING)
    far = [x for x in layers_of(CompressedShape, FLASH) if x.shape.ratio > 1]
    assert {x.shape.kv_bytes_per_token for x in far} == {512 * 2 / 4, 512 * 2 / 128}


def test_products_of_compressed_layers_are_their_matrices():
    model, tp = mr.get_model(FLASH), 8
    run = bound(FLASH).bound.work.run
    names = ("qkv_gemm", "q_up_gemm", "pool_gemm", "selector_gemm", "o_gemm")
    found = sum(op.count * op.flops_per_count for op in run.ops if op.name in names)
    expected = sum(
        layer.count * 2.0 * m.out_features * m.in_features * (1.0 if m.shard == "none" else 1.0 / tp)
        for layer in model.layers
        for m in model.modules(layer)
        if m.kind in ("mla", "o", "indexer")
    )
    assert found == pytest.approx(expected, rel=ROUNDING)


def test_block_sparse_attention_reads_its_blocks():
    grouped = {x.shape.window: x.count for x in bound(BLOCKS).bound.work.run.attention}
    assert grouped == {0: 57, TOPK: 57}  # the last of the two without a window, after three dense layers, is the scores
    (scores,) = layers_of(ScoreShape, BLOCKS)
    assert (scores.count, scores.shape.heads) == (57, 4)


# ------------------------------------------------------------------ laws


def sweep(n, seed=0):
    rng = np.random.default_rng(seed)

    def draw(top, share):
        values = (2.0 ** rng.uniform(0, top, n)).astype(np.int64)
        edge = 2 ** rng.integers(0, top, n) - rng.integers(0, 2, n)
        return np.where(rng.random(n) < 0.3, edge, values) * (rng.random(n) < share)

    return [draw(11, 0.8), draw(17, 0.9), draw(6, 0.6), draw(14, 0.9), draw(17, 0.5)]


def assert_rises(evaluator, n):
    columns = sweep(n)
    before = evaluator.step_time(mr.StepBatch.uniform(*columns))
    window = max(x.shape.window for x in evaluator.bound.work.run.attention)
    for i in range(5):
        more = [c + (j == i) for j, c in enumerate(columns)]
        after = evaluator.step_time(mr.StepBatch.uniform(*more))
        fall = np.where(before > 0, 1.0 - after / np.where(before > 0, before, 1.0), 0.0)
        # Up to a window a kernel priced by its area dips between lengths, as in `test_laws`.
        bound = np.where((i == 4) & (columns[4] < window), 0.002, ROUNDING)
        assert (fall <= bound).all(), (i, float(fall.max()))


@pytest.mark.parametrize("model", ALL)
def test_sparse_steps_rise(model):
    assert_rises(bound(model), size(20_000, 200))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("gpu", ["h100_sxm", "h200_sxm", "b200_sxm", "b300_sxm"])
def test_sparse_steps_rise_everywhere(gpu, engine):
    for model in (*ALL, "moonshotai/Kimi-K3"):
        assert_rises(bound(model, gpu, engine), size(50_000, 200))


@pytest.mark.parametrize("model", ALL)
def test_no_part_beats_its_roofline(model):
    for layers in bound(model).bound.work.run.attention:
        assert (layers.decode.time_s >= layers.decode_roofline_s() * (1 - 1e-9)).all()
        assert (layers.prefill.time_s >= layers.prefill_roofline_s() * (1 - 1e-9)).all()


# ------------------------------------------------------------------ the pieces


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(1, 99)), min_size=1, max_size=20))
def test_no_batch_is_dearer_than_its_halves(points):
    measured = {(2**b, length): float(time) for b, length, time in points}
    batch, length = (np.array(x) for x in zip(*measured, strict=True))
    found = sparse_block._no_dearer_than_halves(batch, length, np.array(list(measured.values())))
    after = dict(zip(measured, found, strict=True))
    for (b, at), time in after.items():
        assert time == min(measured[b, at], 2 * after.get((b // 2, at), np.inf))


@given(st.floats(1e-8, 1e-5), st.floats(1e-13, 1e-9))
def test_rates_of_chunks_are_found(each, square):
    """Exact rows give back what they were made of."""
    new, context = (x.ravel().astype(float) for x in np.meshgrid([4096, 8192, 16384], [2048, 32768, 131072]))
    time = each * new + square * ((context + new) ** 2 - context**2)
    found = sparse_block._rates_of_chunks(
        np.append(new, 1.0), np.append(context, 2048.0), np.append(time, 1e-12), np.append(time, 1e-12)
    )
    assert found is not None
    npt.assert_allclose(found, (each, square), rtol=1e-6)


def test_a_mixture_that_names_no_experts_is_refused():
    fields = {"model_type": "mixtral", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
    fields |= {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 32000}
    with pytest.raises(mr.MfuroofError, match=r"num_experts.*every mixtral model"):
        ModelConfig.from_hf(fields)
    assert ModelConfig.from_hf({**fields, "num_local_experts": 8, "num_experts_per_tok": 2}).layers[0].mlp.kind == "moe"
