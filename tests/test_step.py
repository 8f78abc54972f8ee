"""The evaluator prices what its operations cost, in either batch form, however a batch is cut, copied or threaded."""

from __future__ import annotations

import dataclasses
import math
import pickle
from functools import cache

import naive_step
import numpy as np
import numpy.testing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import (
    BOUND,
    INTERPRETED,
    as_groups,
    evaluator,
    ragged_batch,
    ragged_steps,
    size,
    uniform_batch,
    uniform_steps,
)

import mfuroof as mr
from mfuroof.batch import RaggedColumns, StepBatch, UniformColumns
from mfuroof.core import step as kernel
from mfuroof.core.sources import Source
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import InputError

PRESETS = ("own", "raw", "aic")
CASES = [("8B on H100", "own"), ("70B fp8 on 4 H100", "own"), ("70B fp8 on 4 H100", "raw"), ("8B on H100", "aic")]
FORMS = st.one_of(uniform_steps().map(uniform_batch), ragged_steps().map(ragged_batch))


def concatenate(a, b):
    """Join two batches of one form, by hand."""
    if a.form == "uniform":
        columns = {
            f.name: np.concatenate([np.broadcast_to(getattr(x, f.name), len(x)) for x in (a, b)])
            for f in dataclasses.fields(UniformColumns)
        }
        return StepBatch.uniform(**columns)
    columns = {}
    for f in dataclasses.fields(RaggedColumns):
        first, second = getattr(a, f.name), getattr(b, f.name)
        if f.name.endswith("offsets"):
            columns[f.name] = np.concatenate([first, first[-1] + second[1:]])
        else:
            columns[f.name] = np.concatenate([first, second])
    return StepBatch.from_csr(**columns)


def many(n, seed=0, largest=18):
    """Random uniform steps over the whole range, empty phases among them."""
    rng = np.random.default_rng(seed)

    def lengths(top, share):
        return (2.0 ** rng.uniform(0, top, n)).astype(np.int64) * (rng.random(n) < share)

    return StepBatch.uniform(
        lengths(11, 0.8),
        lengths(largest, 0.9),
        lengths(6, 0.6),
        lengths(14, 0.9),
        lengths(17, 0.5),
        rng.random(n) < 0.8,
    )


# ------------------------------------------------------------------ what is bound


@cache
def definition(name, preset):
    """The tables of a bound model, composed from its operations in plain Python."""
    ev = evaluator(name, preset)
    run, bandwidth, params = ev.bound.work.run, ev.hardware.hbm_bytes_per_s, ev.params
    knots = sorted({float(k) for op in run.ops for k in op.curve.knots})
    plain = {"blend": params.prefill_blend, "spread": params.decode_kv_spread > 0}
    for axis in ("tokens", "sequences"):
        ops = [op for op in run.ops if op.axis == axis]
        curves = [(op.curve.knots.tolist(), op.curve.time_s.tolist(), op.curve.beyond_s) for op in ops]
        named = {op.name: ([0.0] * len(knots), 0.0) for op in ops}
        for op, curve in zip(ops, curves, strict=True):
            values, beyond = named[op.name]
            added = [v + op.count * naive_step.line(curve, k) for v, k in zip(values, knots, strict=True)]
            named[op.name] = added, beyond + op.count * op.curve.beyond_s
        if params.monotone:
            raw = [math.fsum(v) for v in zip(*(values for values, _ in named.values()), strict=True)]
            limit = [
                math.fsum(
                    op.count
                    * max(op.flops_per_count * k / op.peak_flops_per_s, float(op.bytes_at(np.float64(k))) / bandwidth)
                    for op in ops
                )
                for k in knots
            ]
            total = [max(t, r) for t, r in zip(naive_step.isotonic(raw), limit, strict=True)]
            named = {
                k: ([v * t / r for v, t, r in zip(values, total, raw, strict=True)], beyond)
                for k, (values, beyond) in named.items()
            }
        plain[axis] = [(knots, values, beyond) for values, beyond in named.values()]
    plain["decode"] = sum(x.count * x.decode.time_s for x in run.attention).tolist()
    (layers,) = run.attention  # dense models of one kind of layer
    per_token = (layers.decode.time_s[0, 17] - layers.decode.time_s[0, 16]) / 2**16
    kv_read_s = (
        layers.count * max(per_token, layers.shape.kv_bytes_per_token / bandwidth) if params.prefix_kv_floor else 0.0
    )
    extra = 0.0
    if params.prefill_extra_kernels:  # rotary and KV write of one token, as AIConfigurator adds them
        q, kv = layers.shape.heads * layers.shape.head_dim, layers.shape.kv_heads * layers.shape.head_dim
        extra = layers.count * 1.1 * 2 * ((2 * q + 2 * kv + 2 * kv) / (0.8 * bandwidth) + 2 * 3e-6)
    plain["prefill"] = [
        {
            "launch": (layers.count * layers.prefill.launch_s + extra).tolist(),
            "time": (layers.count * layers.prefill.time_s + extra).tolist(),
            "window": layers.shape.window or None,
            "kv_read_s": kv_read_s,
            "query_s": layers.count * 4 * layers.shape.heads * layers.shape.head_dim / bandwidth if kv_read_s else 0.0,
        }
    ]
    return plain


def assert_result(result, expected):
    found = np.stack([result.op_time_s[c] for c in result.components], axis=1)
    # Adjacent counts are knots (4,352 and 4,353): a slope of microseconds a token over an intercept of milliseconds.
    npt.assert_allclose(found, expected, rtol=1e-11, atol=1e-18)
    npt.assert_allclose(result.step_time_s, [math.fsum(e) for e in expected], rtol=1e-11, atol=0)


@pytest.mark.parametrize(("name", "preset"), CASES)
@given(steps=uniform_steps())
def test_uniform_steps_cost_the_sum_of_their_operations(name, preset, steps):
    expected = [naive_step.uniform(definition(name, preset), *s) for s in steps]
    assert_result(evaluator(name, preset).evaluate(uniform_batch(steps)), expected)


@pytest.mark.parametrize(("name", "preset"), CASES)
@given(steps=ragged_steps(max_size=2))
def test_ragged_steps_cost_the_sum_of_their_operations(name, preset, steps):
    expected = [naive_step.ragged(definition(name, preset), *s) for s in steps]
    assert_result(evaluator(name, preset).evaluate(ragged_batch(steps)), expected)


@pytest.mark.parametrize("preset", PRESETS)
@given(FORMS)
def test_parts_and_resources_add_up(preset, batch):
    result = evaluator(preset=preset).evaluate(batch)
    npt.assert_allclose(sum(result.op_time_s.values()), result.step_time_s, rtol=1e-12, atol=1e-18)
    npt.assert_allclose(sum(result.resource_time_s.values()), result.step_time_s, rtol=1e-12, atol=1e-18)
    for times in (*result.op_time_s.values(), *result.resource_time_s.values()):
        assert (times >= 0).all()


@pytest.mark.parametrize("name", BOUND)
def test_parts_and_resources_add_up_over_a_sweep(name):
    result = evaluator(name).evaluate(many(size(20_000, 200)))
    npt.assert_allclose(sum(result.op_time_s.values()), result.step_time_s, rtol=1e-12, atol=1e-18)
    npt.assert_allclose(sum(result.resource_time_s.values()), result.step_time_s, rtol=1e-12, atol=1e-18)


# ------------------------------------------------------------------ one meaning, however it is spelled


@pytest.mark.parametrize("preset", PRESETS)
@given(steps=uniform_steps())
def test_uniform_equals_its_ragged_spelling(preset, steps):
    ev = evaluator(preset=preset)
    uniform, ragged = uniform_batch(steps), ragged_batch([as_groups(s) for s in steps])
    npt.assert_allclose(ev.step_time(ragged), ev.step_time(uniform), rtol=1e-12, atol=0)
    a, b = ev.evaluate(ragged), ev.evaluate(uniform)
    for part in ev.components:
        npt.assert_allclose(a.op_time_s[part], b.op_time_s[part], rtol=1e-12, atol=0)
        npt.assert_allclose(a.op_flops[part], b.op_flops[part], rtol=1e-12, atol=0)
        npt.assert_allclose(a.op_bytes[part], b.op_bytes[part], rtol=1e-12, atol=0)
    npt.assert_array_equal(a.source, b.source)
    npt.assert_allclose(a.distance_octaves, b.distance_octaves, rtol=1e-9, atol=1e-12)


def test_constant_columns_equal_full_ones():
    ev, n = evaluator(), 50
    batch = StepBatch.uniform(np.arange(n), 700, 2, 300, 40, False)
    full = StepBatch.uniform(np.arange(n), [700] * n, [2] * n, [300] * n, [40] * n, [False] * n)
    npt.assert_array_equal(ev.step_time(batch), ev.step_time(full))
    for part, times in ev.evaluate(batch).op_time_s.items():
        npt.assert_array_equal(times, ev.evaluate(full).op_time_s[part])


@given(ragged_steps(), st.randoms(use_true_random=False))
def test_order_and_spelling_of_requests_do_not_matter(steps, random):
    ev = evaluator()
    time = ev.step_time(ragged_batch(steps))
    shuffled, split, merged = [], [], []
    for decode, prefill in steps:
        shuffled.append((random.sample(decode, len(decode)), random.sample(prefill, len(prefill))))
        cuts = [(random.randint(0, g[0]), g) for g in decode], [(random.randint(0, g[0]), g) for g in prefill]
        split.append(tuple([part for c, (n, *rest) in cut for part in ((c, *rest), (n - c, *rest))] for cut in cuts))
        merged.append(([*decode, (0, 99)], [*prefill, (0, 5, 7, True), (3, 5, 0, True)]))  # nobody, and nothing to do
    npt.assert_allclose(ev.step_time(ragged_batch(shuffled)), time, rtol=1e-12, atol=0)
    npt.assert_allclose(ev.step_time(ragged_batch(split)), time, rtol=1e-12, atol=0)
    npt.assert_allclose(ev.step_time(ragged_batch(merged)), time, rtol=1e-12, atol=0)


@given(FORMS, st.data())
def test_slices_have_the_same_bits(batch, data):
    ev, n = evaluator(), len(batch)
    a, b = sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n))))
    whole, cut = ev.evaluate(batch), ev.evaluate(batch.slice(a, b))
    npt.assert_array_equal(cut.step_time_s, whole.step_time_s[a:b])
    for found, expected in (
        (cut.op_time_s, whole.op_time_s),
        (cut.resource_time_s, whole.resource_time_s),
        (cut.op_flops, whole.op_flops),
        (cut.op_bytes, whole.op_bytes),
    ):
        for part in expected:
            npt.assert_array_equal(found[part], expected[part][a:b])
    npt.assert_array_equal(cut.source, whole.source[a:b])
    npt.assert_array_equal(cut.distance_octaves, whole.distance_octaves[a:b])


@given(
    st.one_of(
        st.tuples(uniform_steps(), uniform_steps()).map(lambda p: [uniform_batch(s) for s in p]),
        st.tuples(ragged_steps(), ragged_steps()).map(lambda p: [ragged_batch(s) for s in p]),
    )
)
def test_concatenated_batches_have_the_same_bits(batches):
    ev = evaluator()
    apart = np.concatenate([ev.step_time(b) for b in batches])
    npt.assert_array_equal(ev.step_time(concatenate(*batches)), apart)


@pytest.mark.parametrize("threads", [2, 3, 7])
@given(FORMS)
def test_threads_have_the_same_bits_on_few_steps(threads, batch):
    ev = evaluator()
    npt.assert_array_equal(ev.step_time(batch, threads), ev.step_time(batch))


def test_threads_have_the_same_bits_on_many_steps():
    ev, batch = evaluator(), many(size(50_000, 300))
    alone, together = ev.evaluate(batch), ev.evaluate(batch, threads=4)
    npt.assert_array_equal(together.step_time_s, alone.step_time_s)
    for part in ev.components:
        npt.assert_array_equal(together.op_time_s[part], alone.op_time_s[part])
    order = np.random.default_rng(1).permutation(len(batch))
    columns = [np.broadcast_to(c, len(batch))[order] for c in vars(batch.columns).values()]
    npt.assert_array_equal(ev.step_time(StepBatch.uniform(*columns)), alone.step_time_s[order])


@given(uniform_steps(max_size=1))
def test_scalar_equals_the_array(steps):
    ev = evaluator()
    assert ev.step_time_scalar(*steps[0]) == ev.step_time(uniform_batch(steps))[0]


def test_scalar_arguments_have_the_names_of_the_batch():
    ev = evaluator()
    arguments = {
        "decode_batch": 3,
        "decode_context": 99,
        "prefill_batch": 2,
        "prefill_new_tokens": 50,
        "prefill_context": 7,
    }
    for emits in (True, False):
        expected = ev.step_time(StepBatch.uniform(**arguments, emits=emits))[0]
        assert ev.step_time_scalar(**arguments, emits=emits) == expected


# ------------------------------------------------------------------ nothing to do


@pytest.mark.parametrize("preset", PRESETS)
def test_empty_steps_take_no_time(preset):
    ev = evaluator(preset=preset)
    idle = [
        StepBatch.uniform([0, 0], [0, 99], [0, 7], [5, 0], [3, 3]),
        StepBatch.ragged(prefill=[[], [(9, 0)]], decode=[[], []]),
        StepBatch.from_csr(decode_offsets=[0, 1, 1], decode_contexts=[5], decode_counts=[0]),
    ]
    for batch in idle:
        result = ev.evaluate(batch)
        npt.assert_array_equal(result.step_time_s, [0, 0])
        for parts in (result.op_time_s, result.op_flops, result.op_bytes, result.resource_time_s):
            npt.assert_array_equal(np.stack(list(parts.values())), 0)
        npt.assert_array_equal(result.source, Source.EXACT)
        assert "0.0000" in repr(result)


@pytest.mark.parametrize("batch", [StepBatch.uniform([]), StepBatch.ragged(), StepBatch.uniform([1, 2]).slice(1, 1)])
@pytest.mark.parametrize("threads", [1, 2])
def test_no_steps_at_all(batch, threads):
    result = evaluator().evaluate(batch, threads)
    assert len(result) == 0
    assert result.step_time_s.shape == result.source.shape == result.bound.shape == (0,)
    assert all(times.shape == (0,) for times in result.op_time_s.values())
    assert repr(result) == "StepResult(0 steps)"
    assert result.to_arrow().num_rows == 0


# ------------------------------------------------------------------ arrays: whose, and how many compilations


def test_out_is_filled_and_returned():
    ev, batch = evaluator(), StepBatch.uniform(decode_batch=[1, 2, 3], decode_context=9)
    out = np.full(5, -1.0)
    assert ev.step_time(batch, out=out[1:4]).base is out
    npt.assert_array_equal(out[1:4], ev.step_time(batch))
    npt.assert_array_equal(out[[0, 4]], -1)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty(2), r"float64 \(2,\), expected a contiguous float64 array of shape \(3,\)"),
        (np.empty((3, 1)), "shape"),
        (np.empty(3, np.float32), "float32"),
        (np.empty(3, np.int64), "int64"),
        (np.empty(6)[::2], "contiguous"),
        ([0.0] * 3, "list"),
        (np.broadcast_to(0.0, 3), "contiguous"),
    ],
)
def test_out_must_fit(out, message):
    with pytest.raises(InputError, match=message):
        evaluator().step_time(StepBatch.uniform(decode_batch=[1, 2, 3]), out=out)


def test_out_must_be_writable():
    out = np.zeros(3)
    out.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        evaluator().step_time(StepBatch.uniform(decode_batch=[1, 2, 3]), out=out)
    npt.assert_array_equal(out, 0)


def every_kind_of_input(directory):
    mapped = np.memmap(directory / "batch.bin", dtype=np.int64, mode="w+", shape=4)
    mapped[:] = [1, 2, 3, 4]
    frozen = np.arange(4)
    frozen.flags.writeable = False
    columns = [
        mapped,
        frozen,
        np.arange(4),
        np.arange(4, dtype=np.int32),
        np.arange(4, dtype=np.float32),
        np.arange(8)[::2],
        pa.array([1, 2, 3, 4]),
        [1, 2, 3, 4],
        7,
    ]
    for column in columns:
        yield StepBatch.uniform(column, column, column, column, column)
        yield StepBatch.uniform(decode_batch=[1, 1, 1, 1], decode_context=column)
        if column is not columns[-1]:
            yield StepBatch.from_csr(decode_offsets=[0, 1, 4], decode_contexts=column, decode_counts=column)
            yield StepBatch.from_csr(
                prefill_offsets=[0, 4], prefill_contexts=column, prefill_new_tokens=column, prefill_emits=[1, 0, 1, 1]
            )
    yield StepBatch.from_arrow(pa.table({"decode_contexts": [[1, 2], []], "prefill_tokens": [[], [5]]}))
    yield StepBatch.ragged(decode=[[1, 2], []], prefill=[[], [(3, 4)]])


def test_one_specialisation_a_kernel_and_no_array_of_the_caller_is_written(tmp_path):
    ev = evaluator()
    for batch in every_kind_of_input(tmp_path):
        before = [column.copy() for column in vars(batch.columns).values()]
        for one in (batch, batch.slice(0, 1), batch.slice(1, 1), pickle.loads(pickle.dumps(batch))):
            for bound in (ev, pickle.loads(pickle.dumps(ev))):
                bound.evaluate(one).resource_time_s
                bound.step_time(one, out=np.empty(len(one) + 1)[1:])
        for column, was in zip(vars(batch.columns).values(), before, strict=True):
            npt.assert_array_equal(column, was)
    if not INTERPRETED:
        for name in ("uniform_times", "ragged_times", "uniform_lanes", "ragged_lanes"):
            assert len(getattr(kernel, name).signatures) == 1, name


def test_evaluators_and_results_pickle_small_and_whole():
    ev, batch = evaluator("70B fp8 on 4 H100"), many(200)
    raw = pickle.dumps(ev)
    again = pickle.loads(raw)
    assert len(raw) < 3e6
    a, b = ev.evaluate(batch), again.evaluate(batch)
    npt.assert_array_equal(a.step_time_s, b.step_time_s)
    assert again.components == ev.components
    assert repr(again) == repr(ev)
    for part in ev.components:
        npt.assert_array_equal(a.op_time_s[part], b.op_time_s[part])
        npt.assert_array_equal(a.op_flops[part], b.op_flops[part])
    result = pickle.loads(pickle.dumps(a))
    npt.assert_array_equal(result.step_time_s, a.step_time_s)
    npt.assert_array_equal(result.source, a.source)
    npt.assert_array_equal(result.bound, a.bound)
    assert dict(result.op_time_s).keys() == dict(a.op_time_s).keys()


# ------------------------------------------------------------------ results


def test_result_reads_like_a_record():
    ev = evaluator()
    result = ev.evaluate(
        StepBatch.uniform(
            decode_batch=[1, 64, 0], decode_context=2047, prefill_batch=[0, 0, 4], prefill_new_tokens=4096
        )
    )
    assert len(result) == 3
    assert result.components == ev.components == tuple(result.op_time_s)
    npt.assert_array_equal(result.attention_decode_s, result.op_time_s["attention_decode"])
    npt.assert_array_equal(result.compute_s, result.resource_time_s["compute"])
    npt.assert_array_equal(result.memory_s, result.resource_time_s["memory"])
    assert result.bound_names == ["memory", "memory", "compute"]
    assert [RESOURCES[i] for i in result.bound] == result.bound_names
    for array in (result.step_time_s, result.attention_decode_s, result.compute_s):
        assert not array.flags.writeable
    with pytest.raises(TypeError):
        result.op_time_s["norm"] = 0
    with pytest.raises(AttributeError, match=r"there are .*lm_head"):
        result.nonsense_s
    with pytest.raises(AttributeError):
        result.nonsense


def test_attention_is_charged_to_what_binds_it():
    decode, prefill = StepBatch.uniform(decode_batch=64, decode_context=99_999), StepBatch.uniform(0, 0, 1, 16_384)
    decoding, prompt = evaluator().evaluate(decode), evaluator().evaluate(prefill)
    assert decoding.memory_s[0] > decoding.attention_decode_s[0] > 0.5 * decoding.step_time_s[0]
    assert prompt.compute_s[0] > prompt.attention_prefill_s[0] + prompt.gate_up_gemm_s[0]


def test_result_to_arrow_and_pandas():
    result = evaluator().evaluate(many(30))
    table = result.to_arrow()
    assert table.schema.names == ["step_time_s", *(f"{c}_s" for c in result.components), "bound", "source"]
    npt.assert_array_equal(table.column("step_time_s").to_numpy(), result.step_time_s)
    npt.assert_array_equal(table.column("lm_head_s").to_numpy(), result.op_time_s["lm_head"])
    assert table.column("bound").to_pylist() == result.bound_names
    assert table.column("source").to_pylist() == [Source(s).name.lower() for s in result.source]
    pytest.importorskip("pandas")
    assert result.to_pandas().shape == (30, len(table.schema.names))


def test_result_prints_its_breakdown():
    result = evaluator().evaluate(StepBatch.uniform(decode_batch=[32, 1], decode_context=2047))
    lines = repr(result).splitlines()
    assert lines[0].startswith("StepResult(2 steps, ")
    assert [line.split()[0] for line in lines[2:-1]] == list(result.components)
    assert f"{result.step_time_s[0] * 1e3:.4f}" in lines[-1]
    assert lines[-1].endswith("bound: memory, source: interpolated")
    assert sum(float(line.split()[-1].rstrip("%")) for line in lines[2:-1]) == pytest.approx(100, abs=0.6)


def test_source_and_distance_say_how_far_the_data_is():
    def read(**shape):
        result = evaluator().evaluate(StepBatch.uniform(**shape))
        return Source(result.source[0]), result.distance_octaves[0]

    source, near = read(decode_batch=16, decode_context=1023)
    assert source == Source.INTERPOLATED  # every lookup on a measured point, but the LM head's shape is transferred
    assert near == 0
    source, far = read(decode_batch=24, decode_context=1023)
    assert source == Source.INTERPOLATED
    assert far == pytest.approx(math.log2(4 / 3))  # from 24 down to 32
    source, near = read(prefill_batch=1, prefill_new_tokens=1024)
    assert (source, near) == (Source.INTERPOLATED, 0)  # one prompt of a measured length
    source, _ = read(decode_batch=16, decode_context=2**18)
    assert source == Source.EXTRAPOLATED
    source, far = read(prefill_batch=4, prefill_new_tokens=32768)
    assert source == Source.EXTRAPOLATED
    assert far >= 2  # four times the largest measured token count


def test_repr_names_model_gpu_ranks_and_cost():
    text = repr(evaluator("70B fp8 on 4 H100"))
    for part in ("Llama-3.1-70B", "h100_sxm", "tp4", "kernels", "vllm"):
        assert part in text


def test_repairs_are_reported():
    repairs = {r.curve: r for r in evaluator("70B fp8 on 4 H100").bound.repairs}
    assert repairs.keys() == {"tokens", "sequences"}
    assert 10 < repairs["tokens"].changed < repairs["tokens"].points < 150
    assert 0 < repairs["tokens"].mean < repairs["tokens"].largest < 0.2
    assert evaluator("70B fp8 on 4 H100", "raw").bound.repairs == ()


def test_lazy_names():
    assert mr.StepBatch is StepBatch
