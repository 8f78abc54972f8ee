"""Laws of the kernels cost: what is conserved, what never falls, what nothing beats.

Where a law has a tolerance it is rounding (`ROUNDING`), or one of two bounds on how much an unlike request may speed
others up, because attention is priced at the utilisation of the batch it is part of:

- Mixed decode lengths. Of the nested sets "KV length of at least 2^j" the slowest counts. A request joins the sets that
  reach down to its length, and lowers the mean length of such a set of n by less than 1/(n + 1): the set had a request
  in its lowest octave, so for n = 1 by less than 1/4. Time per KV token does not grow with the KV length, and more
  requests are not faster, so decode attention falls by less than 1/4 if one request is the slowest set, and by less
  than 1/(n + 1), at most 1/3, otherwise. The same holds where a token of context lifts a request into the next octave.
- Mixed prompts. A prompt of n new tokens costs T(b)/b with b = (all new tokens N)/n. A prompt of x new tokens that
  joins raises every b by (N + x)/N, and T does not fall with b, so prefill attention falls by no more than x/(N + x).
"""

from __future__ import annotations

import dataclasses

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import (
    BOUND,
    INTERPRETED,
    LLAMA_70B,
    MICRO,
    TRANSFERRED,
    WINDOWED,
    counts,
    evaluator,
    packed,
    prompts,
    ragged_batch,
    ragged_steps,
    requests,
    size,
    uniform_batch,
    uniform_steps,
)

import mfuroof as mr
from mfuroof.batch import StepBatch

ROUNDING = 1e-12
"""Relative; the sums of a step have a dozen terms."""
FIELDS = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
MODULES = {"qkv_gemm": "qkv", "o_gemm": "o", "gate_up_gemm": "gate_up", "down_gemm": "down", "lm_head": "lm_head"}


def sweep(n, seed=0, scale=0):
    """Random uniform steps over the grid, or ``scale`` octaves beyond it; columns as a list."""
    rng = np.random.default_rng(seed)

    def draw(top, share):
        values = (2.0 ** rng.uniform(0, top + scale, n)).astype(np.int64)
        edge = 2 ** rng.integers(0, top + scale, n) - rng.integers(0, 2, n)  # where cells begin and end
        return np.where(rng.random(n) < 0.3, edge, values) * (rng.random(n) < share)

    return [
        draw(11, 0.8),
        draw(17, 0.9),
        draw(6, 0.6),
        draw(14, 0.9),
        draw(17, 0.5),
        (rng.random(n) < 0.8).astype(np.int64),
    ]


def assert_no_faster(after, before, bound=0.0, message=""):
    """``after`` is at least (1 - bound) of ``before``, to rounding."""
    after, before = np.asarray(after), np.asarray(before)
    fall = np.where(before > 0, 1.0 - after / np.where(before > 0, before, 1.0), 0.0)
    worst = int(np.argmax(fall))
    assert (after >= 0).all()  # False for NaN
    assert (fall <= bound + ROUNDING).all(), f"{message} falls by {fall[worst]:.3g} at {worst}"


def work(batch, name="8B on H100"):
    result = evaluator(name).evaluate(batch)
    return result.op_flops, result.op_bytes


# ------------------------------------------------------------------ conservation of work


@pytest.mark.parametrize("name", BOUND)
@given(steps=ragged_steps(max_size=2), data=st.data())
def test_flops_and_cache_bytes_are_additive_and_weights_are_read_once(name, steps, data):
    cut = [([data.draw(st.integers(0, len(group))) for group in step]) for step in steps]
    parts = [
        [tuple(g[:c] for g, c in zip(s, cs, strict=True)) for s, cs in zip(steps, cut, strict=True)],
        [tuple(g[c:] for g, c in zip(s, cs, strict=True)) for s, cs in zip(steps, cut, strict=True)],
    ]
    flops, moved = work(ragged_batch(steps), name)
    apart = [work(ragged_batch(p), name) for p in parts]
    none_flops, none_bytes = work(ragged_batch([([], [])] * len(steps)), name)
    weights = weight_bytes(name)
    for part in flops:
        npt.assert_allclose(flops[part], sum(a[0][part] for a in apart), rtol=ROUNDING, atol=0)
        twice = sum(a[1][part] for a in apart)
        used = [np.sign(a[0][part]) for a in apart]
        npt.assert_allclose(moved[part], twice - weights.get(part, 0.0) * (used[0] * used[1]), rtol=ROUNDING, atol=1e-3)
        assert (none_flops[part] == 0).all()
        assert (none_bytes[part] == 0).all()


def weight_bytes(name):
    """Bytes of the matrices of one rank, from the shapes of the model."""
    ev = evaluator(name)
    m, tp = ev.model, ev.parallel.tp_size
    element = {"bf16": 2, "fp8": 1}
    d, head, width = m.hidden_size, m.head_dim, m.intermediate_size
    shapes = {
        "qkv_gemm": d * head * (m.num_attention_heads + 2 * m.num_key_value_heads),
        "o_gemm": d * head * m.num_attention_heads,
        "gate_up_gemm": 2 * d * width,
        "down_gemm": d * width,
    }
    layer = m.layers[0]
    out = {k: m.num_hidden_layers * n // tp * element[m.module_dtype(MODULES[k], layer)] for k, n in shapes.items()}
    return out | {"lm_head": m.vocab_size // tp * d * element[m.module_dtype("lm_head")]}


def test_work_by_hand():
    """Llama-3.1-8B: 32 layers, 4096 wide, 32 heads of 128, 8 KV heads, MLP 14336, vocabulary 128256."""
    flops, moved = work(StepBatch.uniform(3, 99, 2, 10, 5, [True, False]))
    tokens, kv = 3 + 20, 3 * 100
    npt.assert_allclose(flops["gate_up_gemm"], [32 * 2 * tokens * 4096 * 2 * 14336] * 2)
    npt.assert_allclose(flops["lm_head"], [2 * 4096 * 128256 * n for n in (5, 3)])
    npt.assert_allclose(flops["attention_decode"], [32 * 4 * 32 * 128 * kv] * 2)
    npt.assert_allclose(flops["attention_prefill"], [32 * 4 * 32 * 128 * 2 * (15**2 - 5**2) / 2] * 2)
    npt.assert_allclose(moved["attention_decode"], [32 * (kv * 2 * 8 * 128 * 2 + 3 * 2 * 32 * 128 * 2)] * 2)
    npt.assert_allclose(moved["attention_prefill"], [32 * 2 * (15 * 2 * 8 * 128 * 2 + 10 * 2 * 32 * 128 * 2)] * 2)
    npt.assert_allclose(moved["down_gemm"], [32 * 2 * (4096 * 14336 + tokens * (4096 + 14336))] * 2)
    npt.assert_allclose(moved["lm_head"], [2 * (4096 * 128256 + n * (4096 + 128256)) for n in (5, 3)])
    npt.assert_allclose(moved["embedding"], [2 * 4096 * tokens] * 2)


@given(st.lists(counts(4096, minimum=1), min_size=1, max_size=6), counts(4096), counts(8, minimum=1))
def test_chunked_prefill_conserves_flops(chunks, cached, batch):
    starts = cached + np.concatenate([[0], np.cumsum(chunks)[:-1]])
    last = np.arange(len(chunks)) == len(chunks) - 1
    pieces, _ = work(StepBatch.uniform(0, 0, batch, chunks, starts, last))
    whole, _ = work(StepBatch.uniform(0, 0, batch, sum(chunks), cached))
    for part in whole:
        npt.assert_allclose(pieces[part].sum(), whole[part][0], rtol=ROUNDING)


@pytest.mark.parametrize("tp", [2, 4, 8, 16, 32])
def test_flops_of_all_ranks_cover_the_model(tp):
    batch = StepBatch.uniform([1, 100, 0], [99, 5000, 0], [0, 3, 1], 700, [0, 40, 9])
    params = mr.CostParams(missing="roofline")
    alone = mr.StepEvaluator(LLAMA_70B, "h100_sxm", params=params).evaluate(batch)
    ranks = mr.StepEvaluator(LLAMA_70B, "h100_sxm", tp_size=tp, params=params).evaluate(batch)
    for part, total in alone.op_flops.items():
        if part == "qkv_gemm" and tp > 8:  # each rank keeps one of eight KV heads, a copy for each further rank
            npt.assert_allclose(ranks.op_flops[part] * tp, total * (64 + 2 * tp) / (64 + 2 * 8), rtol=ROUNDING)
        else:
            npt.assert_allclose(ranks.op_flops.get(part, 0.0) * tp, total, rtol=ROUNDING)
        assert (ranks.op_flops.get(part, 0.0) * tp >= total * (1 - ROUNDING)).all()


def test_narrow_weights_shrink_the_weights_only():
    batch = StepBatch.uniform(7, 300, 2, 50, 20)
    wide = evaluator("8B on H100").evaluate(batch)
    narrow = mr.StepEvaluator(evaluator().model, "h100_sxm", weight_dtype="fp8").evaluate(batch)
    for part, weights in weight_bytes("8B on H100").items():
        lost = wide.op_bytes[part] - narrow.op_bytes[part]
        npt.assert_allclose(lost, 0 if part == "lm_head" else weights / 2, rtol=1e-3)  # scales, one a channel or tensor
    for part in ("attention_decode", "attention_prefill", "norm", "embedding"):
        npt.assert_array_equal(wide.op_bytes[part], narrow.op_bytes[part])
    for part, flops in wide.op_flops.items():
        npt.assert_array_equal(flops, narrow.op_flops[part])
    small = mr.StepEvaluator(evaluator().model, "h100_sxm", kv_dtype="fp8").evaluate(batch)
    query = 32 * 2 * 32 * 128 * 2
    for part, tokens in (("attention_decode", 7), ("attention_prefill", 100)):
        npt.assert_allclose(2 * (small.op_bytes[part] - query * tokens), wide.op_bytes[part] - query * tokens)


# ------------------------------------------------------------------ time never falls


@pytest.mark.parametrize("name", BOUND)
@pytest.mark.parametrize("scale", [0, 10])
def test_more_of_anything_is_never_faster(name, scale):
    """Requests, context, prompts, tokens and prefix, one more and twice as many, inside the grid and beyond it."""
    ev, columns = evaluator(name), sweep(size(20_000, 300), seed=scale, scale=scale)
    before = ev.step_time(StepBatch.uniform(*columns))
    assert np.isfinite(before).all()
    assert (before[columns[0] + columns[2] * columns[3] > 0] > 0).all()
    for i, field in enumerate(FIELDS):
        for more in (columns[i] + 1, columns[i] * 2):
            after = ev.step_time(StepBatch.uniform(*columns[:i], more, *columns[i + 1 :]))
            assert_no_faster(after, before, message=field)


@given(uniform_steps(requests=2**30, tokens=2**39, prompts=2**30), st.integers(0, 4), counts(2**20, minimum=1))
def test_more_of_anything_is_never_faster_anywhere(steps, field, more):
    larger = [(*s[:field], s[field] + more, *s[field + 1 :]) for s in steps]
    ev = evaluator("70B fp8 on 4 H100")
    before, after = ev.step_time(uniform_batch(steps)), ev.step_time(uniform_batch(larger))
    assert np.isfinite(after).all()
    assert_no_faster(after, before)


@pytest.mark.parametrize("name", [*BOUND, *TRANSFERRED])
def test_attention_rises_on_its_own(name):
    """Not only the sum: the grids themselves never fall, so no token curve hides it; nor do those of other shapes."""
    ev, columns = evaluator(name), sweep(size(20_000, 300), seed=3)
    before = ev.evaluate(StepBatch.uniform(*columns))
    for i, field in enumerate(FIELDS):
        after = ev.evaluate(StepBatch.uniform(*columns[:i], columns[i] + 1, *columns[i + 1 :]))
        for part in ("attention_decode", "attention_prefill"):
            assert_no_faster(after.op_time_s[part], before.op_time_s[part], message=f"{part} along {field}")


@pytest.mark.parametrize("name", WINDOWED)
def test_windowed_layers_rise_but_for_short_prefixes(name):
    """What lies beyond the window is free. Up to it a kernel priced by its area dips a little between lengths."""
    ev, columns = evaluator(name), sweep(size(20_000, 300), seed=4)
    window = max(x.shape.window for x in ev.bound.work.run.attention)
    before = ev.evaluate(StepBatch.uniform(*columns))
    for i, field in enumerate(FIELDS):
        more = columns[i] * 2 + 1
        after = ev.evaluate(StepBatch.uniform(*columns[:i], more, *columns[i + 1 :]))
        bound = np.where((field == "prefill_context") & (columns[i] < window), 0.01, 0.0)
        for part in ("attention_decode", "attention_prefill"):
            assert_no_faster(after.op_time_s[part], before.op_time_s[part], bound, f"{part} along {field}")


@pytest.mark.parametrize("name", ["8B on H100", "70B fp8 on 4 H100"])
def test_another_layer_is_never_faster(name):
    base = evaluator(name)
    m = base.model
    shape = {
        k: getattr(m, k)
        for k in ("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim", "vocab_size")
    }
    batch = StepBatch.uniform(*sweep(size(5_000, 200), seed=5))

    def time(layers):
        model = mr.ModelConfig(**shape, intermediate_size=m.intermediate_size, num_hidden_layers=layers)
        tp = base.parallel.tp_size
        return mr.StepEvaluator(model, base.hardware, tp_size=tp, params=mr.CostParams(missing="roofline")).step_time(
            batch
        )

    few, more, many = time(3), time(4), time(80)
    assert_no_faster(more, few)
    assert_no_faster(many, more)
    busy = few > 0
    assert (more[busy] > few[busy]).all()


@pytest.mark.parametrize("share", [0.9, 0.3])
@pytest.mark.parametrize("resource", ["hbm_bytes_per_s", "peak_flops_per_s", "nvlink_bytes_per_s"])
def test_a_slower_resource_is_never_faster_and_costs_at_most_its_share(resource, share):
    base = evaluator("70B fp8 on 4 H100")
    batch = StepBatch.uniform(*sweep(size(10_000, 200), seed=6))

    def time(factor):
        value = getattr(base.hardware, resource)
        slower = value * factor if isinstance(value, float) else {k: v * factor for k, v in value.items()}
        hardware = dataclasses.replace(base.hardware, **{resource: slower})
        return mr.StepEvaluator(base.model, hardware, tp_size=4).step_time(batch)

    before, after = base.step_time(batch), time(share)
    npt.assert_array_equal(time(1.0), before)
    assert_no_faster(after, before)
    assert_no_faster(before / share, after)
    assert (after > before * 1.001).any()


@given(st.lists(st.tuples(counts(2048), counts(131072)), min_size=1, max_size=8), counts(64, minimum=1))
def test_like_decode_requests_are_never_faster(groups, more):
    ev = evaluator()
    before = ev.step_time(ragged_batch([([g], []) for g in groups]))
    after = ev.step_time(ragged_batch([([(g[0] + more, g[1])], []) for g in groups]))
    assert_no_faster(after, before)


@given(
    st.lists(st.tuples(counts(64), counts(131072), counts(16384, minimum=1), st.booleans()), min_size=1, max_size=8),
    counts(64, minimum=1),
)
def test_like_prompts_are_never_faster(groups, more):
    ev = evaluator()
    before = ev.step_time(ragged_batch([([], [g]) for g in groups]))
    after = ev.step_time(ragged_batch([([], [(g[0] + more, *g[1:])]) for g in groups]))
    assert_no_faster(after, before)


# ------------------------------------------------------------------ unlike requests: the two bounds


def decode_bound(groups, grid):
    """How much another request may lower decode attention: by the size of the slowest nested set."""
    best, n_best = 0.0, 1
    for j in range(64):
        longest = [(count, context + 1) for count, context in groups if context + 1 >= 2**j and count > 0]
        n = sum(count for count, _ in longest)
        if n:
            time = naive_step.decode(grid, n, sum(count * kv for count, kv in longest) / n)
            if time >= best:
                best, n_best = time, n
    return 1 / 4 if n_best == 1 else 1 / (n_best + 1)


@st.composite
def slowing_grids(draw, rows=5, columns=8):
    """Decode grids that rise along both axes, and by at most a factor of two an octave of KV length."""
    grid = np.full((rows, columns), draw(st.integers(0, 50)) * MICRO)
    for _ in range(2):
        octaves = st.lists(st.floats(1, 2), min_size=columns, max_size=columns)
        along_batch = np.cumsum(draw(st.lists(st.integers(0, 40), min_size=rows, max_size=rows))) + 1.0
        grid = grid + along_batch[:, None] * np.cumprod(draw(octaves)) * MICRO
    return grid.tolist()


def attention_of(grid, steps):
    from mfuroof.core import step as kernel
    from mfuroof.costs.columns import ragged_columns

    nothing = {"launch": [0.0, 0.0], "time": [[0.0, 0.0]] * 2, "window": None, "kv_read_s": 0.0, "query_s": 0.0}
    plain = {"decode": grid, "prefill": [nothing], "blend": "affine_rate", "spread": False}
    plain |= {axis: [([1, 2], [0.0, 0.0], 0.0)] for axis in ("tokens", "sequences")}
    out = np.empty(len(steps))
    kernel.ragged_times(packed(plain, total=True), *ragged_columns(ragged_batch(steps).columns), out)
    return out


unlike = st.lists(st.tuples(counts(6, minimum=1), counts(200)), min_size=1, max_size=5)


@given(slowing_grids(), unlike, counts(200))
def test_unlike_decode_request_is_bounded_on_any_grid(grid, groups, context):
    before, after = attention_of(grid, [(groups, []), ([*groups, (1, context)], [])])
    assert_no_faster([after], [before], decode_bound(groups, grid))


@given(slowing_grids(), unlike, st.integers(0, 4), st.integers(1, 300))
def test_context_of_one_of_many_is_bounded_on_any_grid(grid, groups, which, more):
    """Lifting one request from octave to octave is joining the sets above, and leaving none."""
    which %= len(groups)
    count, context = groups[which]
    lifted = [*groups[:which], (count - 1, context), (1, context + more), *groups[which + 1 :]]
    before, after = attention_of(grid, [(groups, []), (lifted, [])])
    assert_no_faster([after], [before], decode_bound(groups, grid))


@pytest.mark.parametrize("name", BOUND)
@given(groups=requests(tokens=131072), context=counts(131072))
def test_unlike_decode_request_is_bounded(name, groups, context):
    ev = evaluator(name)
    grid = sum(x.count * x.decode.time_s for x in ev.bound.work.run.attention).tolist()
    before = ev.evaluate(ragged_batch([(groups, [])]))
    after = ev.evaluate(ragged_batch([([*groups, (1, context)], [])]))
    assert_no_faster(after.attention_decode_s, before.attention_decode_s, decode_bound(groups, grid))
    allowed = decode_bound(groups, grid) * before.attention_decode_s
    assert (after.step_time_s >= (before.step_time_s - allowed) * (1 - ROUNDING)).all()


def mixed_decode(n, seed):
    """Steps of one to four lengths, as CSR columns, and a further request for each."""
    rng = np.random.default_rng(seed)
    groups = rng.integers(1, 5, n)
    offsets = np.concatenate([[0], np.cumsum(groups)])
    lengths = (2.0 ** rng.uniform(0, 17, offsets[-1])).astype(np.int64)
    extra = np.where(
        rng.random(n) < 0.5, 2 ** rng.integers(0, 17, n) - 1, (2.0 ** rng.uniform(0, 17, n)).astype(np.int64)
    )
    return offsets, lengths, (2.0 ** rng.uniform(0, 5, offsets[-1])).astype(np.int64), extra


@pytest.mark.parametrize("name", BOUND)
def test_unlike_decode_requests_hardly_matter_on_measured_grids(name):
    """Measured utilisation grows slowly with the batch: 11 % of attention, 2.5 % of a step are the worst seen."""
    n = size(20_000, 200)
    ev, (offsets, lengths, number, extra) = evaluator(name), mixed_decode(n, seed=1)
    before = StepBatch.from_csr(decode_offsets=offsets, decode_contexts=lengths, decode_counts=number)
    after = StepBatch.from_csr(
        decode_offsets=offsets + np.arange(n + 1),
        decode_contexts=np.insert(lengths, offsets[1:], extra),
        decode_counts=np.insert(number, offsets[1:], 1),
    )
    a, b = ev.evaluate(after), ev.evaluate(before)
    assert_no_faster(a.attention_decode_s, b.attention_decode_s, 0.12)
    assert_no_faster(a.step_time_s, b.step_time_s, 0.025)


def total_new(groups):
    return sum(count * new for count, _, new, _ in groups)


@pytest.mark.parametrize("name", BOUND)
@given(groups=prompts(), joining=st.tuples(counts(131072), counts(16384, minimum=1)))
def test_unlike_prompt_is_bounded(name, groups, joining):
    ev, (context, new) = evaluator(name), joining
    before = ev.evaluate(ragged_batch([([], groups)]))
    after = ev.evaluate(ragged_batch([([], [*groups, (1, context, new, False)])]))
    bound = new / (total_new(groups) + new)
    assert_no_faster(after.attention_prefill_s, before.attention_prefill_s, bound)
    allowed = bound * before.attention_prefill_s
    assert (after.step_time_s >= (before.step_time_s - allowed) * (1 - ROUNDING)).all()


@pytest.mark.parametrize("name", BOUND)
@given(groups=prompts().filter(lambda g: total_new(g) > 0), which=st.integers(0, 3), column=st.sampled_from([1, 2]))
def test_token_of_one_of_many_prompts_is_bounded(name, groups, which, column):
    """A further token of one prompt raises the utilisation of the others by 1/N; a cached one changes nothing there."""
    which %= len(groups)
    count, context, new, emits = groups[which]
    longer = (count, context + (column == 1), new + (column == 2), emits)
    ev = evaluator(name)
    before = ev.evaluate(ragged_batch([([], groups)]))
    after = ev.evaluate(ragged_batch([([], [*groups[:which], longer, *groups[which + 1 :]])]))
    grown = total_new([*groups[:which], longer, *groups[which + 1 :]])
    assert_no_faster(after.attention_prefill_s, before.attention_prefill_s, 1 - total_new(groups) / grown)


# ------------------------------------------------------------------ nothing beats the roofline


def roofline(ev, result):
    """Sum over components of the larger of compute at the peak and traffic at the bandwidth. [s]"""
    total = 0.0
    for part in result.components:
        module = MODULES.get(part)
        peak = ev.hardware.peak(ev.model.module_dtype(module, ev.model.layers[0]) if module else "bf16")
        total = total + np.maximum(result.op_flops[part] / peak, result.op_bytes[part] / ev.hardware.hbm_bytes_per_s)
    return total


@pytest.mark.parametrize("name", BOUND)
@pytest.mark.parametrize("scale", [0, 10])
def test_no_step_beats_its_roofline(name, scale):
    ev = evaluator(name)
    result = ev.evaluate(StepBatch.uniform(*sweep(size(20_000, 300), seed=7, scale=scale)))
    assert_no_faster(result.step_time_s, roofline(ev, result))


@pytest.mark.parametrize("name", BOUND)
@given(steps=ragged_steps())
def test_no_mixed_step_beats_its_roofline(name, steps):
    ev = evaluator(name)
    result = ev.evaluate(ragged_batch(steps))
    assert_no_faster(result.step_time_s, roofline(ev, result))


@pytest.mark.parametrize("name", BOUND)
def test_attention_never_beats_its_own_roofline(name):
    """Decode exactly. Prefill on its lattice; between lengths, launch + F (r + s F) dips below a memory roofline, which
    is straight, by up to 6 % (L40S), and a chunk behind a prefix is held to its cache reads alone.
    """
    ev = evaluator(name)
    result = ev.evaluate(StepBatch.uniform(*sweep(size(20_000, 300), seed=8)))
    for part, dip in (("attention_decode", 0.0), ("attention_prefill", 0.07)):
        limit = np.maximum(
            result.op_flops[part] / ev.hardware.peak("bf16"), result.op_bytes[part] / ev.hardware.hbm_bytes_per_s
        )
        assert_no_faster(result.op_time_s[part], limit, dip, message=part)
    lattice = StepBatch.uniform(0, 0, *(x.ravel() for x in np.meshgrid(2 ** np.arange(9), 2 ** np.arange(18))))
    result = ev.evaluate(lattice)
    limit = np.maximum(
        result.op_flops["attention_prefill"] / ev.hardware.peak("bf16"),
        result.op_bytes["attention_prefill"] / ev.hardware.hbm_bytes_per_s,
    )
    assert_no_faster(result.attention_prefill_s, limit)


def test_raw_tables_do_fall():
    """The laws are not empty: without the repair, more is often faster."""
    ev, columns = evaluator("70B fp8 on 4 H100", "raw"), sweep(size(5_000, 1_000), seed=9)
    before = ev.step_time(StepBatch.uniform(*columns))
    after = ev.step_time(StepBatch.uniform(columns[0] + 1, *columns[1:]))
    assert (after < before * (1 - 1e-3)).mean() > 0.01


def test_interpreted_or_compiled_is_what_was_asked_for():
    from mfuroof.core import step as kernel

    assert hasattr(kernel.uniform_times, "signatures") != INTERPRETED
