"""Laws of the MFU-table cost, for our conventions and the peers': conservation, order, monotonicity, penalties."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mfu_folders import GPU, OURS, RAW, bind, parts, put_attention, put_gemm, ragged, steps, times

from mfuroof.batch import StepBatch
from mfuroof.models import ModelConfig
from mfuroof.params import CostParams
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


@pytest.mark.filterwarnings("ignore:BLIS's rule reads:mfuroof.errors.MfuroofWarning")
@pytest.mark.parametrize("name", PRESETS)
@settings(max_examples=30)
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
@settings(max_examples=30)
@given(st.lists(steps, min_size=1, max_size=4), st.randoms())
def test_parts_combine_and_order_slices_and_splits_do_not_matter(name, bounds, given_steps, random):
    bound, batch = bounds[name], ragged(*given_steps)
    expected = times(bound, batch)
    rows = np.array(list(parts(bound, batch).values()))
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
