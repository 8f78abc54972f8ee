"""Laws of the constant-MFU roofline: conservation, order, penalties, monotonicity, bounds."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import numpy.testing as npt
import pytest
from constant_cases import GPU, H100, OURS, bind, latent, llama, parts, quantised, ragged, steps, times
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.errors import InputError, MfuroofWarning
from mfuroof.params import CostParams

PRESETS = {
    "ours": OURS,
    "blis": CostParams.blis(0.45, 0.3),
    "penalties": CostParams.blis(0.45, 0.3, 0.4, 0.25),
    "calibrated": CostParams.blis_calibrated(),
    "sum": dataclasses.replace(OURS, phase_combination="sum", overlap_penalty=0.5),
    "max": dataclasses.replace(OURS, phase_combination="max"),
    "ring": dataclasses.replace(OURS, tp_communication="ring", step_overhead_s=1e-3, decode_overhead_s=1e-4),
}
SHAPES = {"dense": llama(), "latent": latent(), "mixture": llama(num_experts=16, num_experts_per_tok=3)}


@pytest.mark.parametrize("name", PRESETS)
@given(
    shape=st.sampled_from(["dense", "mixture"]),
    counts=st.tuples(st.integers(0, 300), st.integers(0, 300)),
    lengths=st.tuples(st.integers(0, 100_000), st.integers(0, 10_000), st.integers(0, 100_000)),
    emits=st.booleans(),
)
def test_uniform_equals_its_ragged_spelling(name, shape, counts, lengths, emits):
    bound = bind_quietly(SHAPES[shape], PRESETS[name], tp_size=2)
    (decoding, prefills), (context, new, prefix) = counts, lengths
    uniform = StepBatch.uniform(decoding, context, prefills, new, prefix, emits)
    listed = StepBatch.ragged([[(prefix, new)] * prefills], [[context] * decoding], [[emits] * prefills])
    counted = StepBatch.from_csr(
        decode_offsets=[0, 1], decode_contexts=[context], decode_counts=[decoding], prefill_offsets=[0, 1],
        prefill_contexts=[prefix], prefill_new_tokens=[new], prefill_counts=[prefills], prefill_emits=[emits],
    )  # fmt: skip
    expected = times(bound, uniform)
    npt.assert_allclose(times(bound, listed), expected, rtol=1e-12)
    npt.assert_allclose(times(bound, counted), expected, rtol=1e-12)
    assert bound.scalar(decoding, context, prefills, new, prefix, emits) == expected[0]


def bind_quietly(model, params, **parallel):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        return bind(model, params, **parallel)


@pytest.mark.parametrize("name", PRESETS)
@given(st.lists(steps, min_size=1, max_size=4), st.randoms())
def test_parts_combine_and_order_slices_and_splits_do_not_matter(name, given_steps, random):
    bound = bind_quietly(SHAPES["mixture"], PRESETS[name], tp_size=2)
    batch = ragged(*given_steps)
    expected = times(bound, batch)
    rows = np.array(list(parts(bound, batch).values()))
    npt.assert_allclose(bound.combine(rows), expected, rtol=1e-14)
    resources = np.empty((4, len(batch)))
    bound.resource_times(batch, resources)
    npt.assert_allclose(resources.sum(axis=0), rows.sum(axis=0), rtol=1e-12)
    shuffled = [(random.sample(p, len(p)), random.sample(d, len(d))) for p, d in given_steps]
    npt.assert_allclose(times(bound, ragged(*shuffled)), expected, rtol=1e-12)
    alone = [times(bound, batch.slice(i, i + 1))[0] for i in range(len(batch))]
    npt.assert_array_equal(alone, expected)


@given(steps, st.floats(0, 1), st.floats(0, 1), st.sampled_from(["dense", "mixture"]))
def test_penalties_never_speed_up_and_act_where_they_should(step, mixed, overlap, shape):
    batch, model = ragged(step), SHAPES[shape]
    plain, penalised = bind(model, CostParams.blis(0.45, 0.3)), bind(model, CostParams.blis(0.45, 0.3, mixed, overlap))
    before, after = parts(plain, batch), parts(penalised, batch)
    npt.assert_array_equal(after["memory"], before["memory"])
    if not step[0] or not step[1]:
        npt.assert_array_equal(after["compute"], before["compute"])
    assert after["compute"] >= before["compute"] * (1 - 1e-15)
    assert times(penalised, batch) >= times(plain, batch) * (1 - 1e-15)
    whole = bind(model, CostParams.blis(0.45, 0.3, 0.0, 1.0))
    npt.assert_allclose(times(whole, batch), before["compute"] + before["memory"], rtol=1e-14)


def test_mixed_penalty_grows_with_the_minority_and_vanishes_where_memory_binds():
    bound, plain = bind(llama(), CostParams.blis(0.45, 0.3, 0.8)), bind(llama(), CostParams.blis(0.45, 0.3))
    decoding = np.arange(1, 512)
    batch = StepBatch.uniform(decoding, 10, 1, 1024 - decoding)
    ratio = parts(bound, batch)["compute"] / parts(plain, batch)["compute"]
    assert (np.diff(ratio) > 0).all()
    npt.assert_allclose(ratio[-1], 1 / (1 - 0.8 * 511 / 1024), rtol=1e-12)
    light = StepBatch.uniform(4, 60_000, 1, 4)
    npt.assert_array_equal(times(bound, light), times(plain, light))
    half = bind(llama(), CostParams.blis(0.45, 0.3, 1.0))
    even = StepBatch.uniform(512, 10, 1, 512)
    npt.assert_allclose(parts(half, even)["compute"], 2 * parts(plain, even)["compute"], rtol=1e-12)


@pytest.mark.parametrize("name", ["ours", "blis", "penalties"])
@given(steps, st.sampled_from(["dense", "latent", "mixture"]))
def test_time_never_falls_as_a_step_grows_and_stays_above_the_roofline(name, step, shape):
    bound = bind_quietly(SHAPES[shape], PRESETS[name])
    prefill, decode = step
    base = times(bound, ragged(step))[0]
    grown = [(prefill, [*decode, 100]), ([*prefill, (10, 50)], decode)]
    if decode:
        grown.append((prefill, [decode[0] + 1, *decode[1:]]))
    if prefill and name != "penalties":  # a penalty falls as the majority grows
        (p, t), *rest = prefill
        grown += [([(p + 1, t), *rest], decode), ([(p, t + 1), *rest], decode)]
    if name == "penalties":
        grown = grown[2:]
    for more in grown:
        assert times(bound, ragged(more))[0] >= base * (1 - 1e-12)
    batch = ragged(step)
    work = sum(bound.flops(batch).values()) / GPU["bf16"]
    moved = bound.work.weight_bytes()[0] if prefill or decode else 0.0
    assert base >= max(work[0], moved / GPU["bandwidth"]) * (1 - 1e-12)


@given(steps)
def test_wider_longer_and_slower_models_and_gpus_take_longer(step):
    batch = ragged(step)
    base = times(bind(llama()), batch)
    slower = dataclasses.replace(H100, hbm_bytes_per_s=2e12, peak_flops_per_s={"bf16": 500e12})
    for other in (llama(num_hidden_layers=33), llama(intermediate_size=20_000), llama(head_dim=256)):
        assert times(bind(other), batch) >= base
    assert times(bind(llama(), hardware=slower), batch) >= base
    for tp in (2, 3, 8, 100):
        assert times(bind(llama(), tp_size=tp), batch) <= base
        share = sum(bind(llama(), tp_size=tp).flops(batch).values()) * tp
        assert share >= sum(bind(llama()).flops(batch).values()) * (1 - 1e-12)


@given(steps)
def test_int4_weights_are_faster_where_memory_binds_and_no_slower_elsewhere(step):
    batch = ragged(step)
    for params in (CostParams.blis(0.45, 0.3), CostParams.blis(0.45, 0.3, 0.2, 0.2)):
        full = bind(llama(), params)
        int4 = bind(llama(quantization=quantised(0.5)), params)
        before, after = parts(full, batch), parts(int4, batch)
        npt.assert_array_equal(after["compute"], before["compute"])
        assert times(int4, batch) <= times(full, batch)
        if before["memory"] > before["compute"]:
            assert times(int4, batch) < times(full, batch)


def test_empty_steps_cost_nothing_and_requests_without_tokens_read_the_weights():
    empty = ragged(([], []))
    nothing = ragged(([(0, 0)], []))
    for params in (OURS, CostParams.blis(0.45, 0.3)):
        bound = bind(llama(), params)
        assert times(bound, empty) == 0
        npt.assert_allclose(times(bound, nothing), bound.work.dense_bytes / 3.35e12, rtol=1e-12)
    charged = bind(llama(), dataclasses.replace(OURS, step_overhead_s=1e-3, empty_step_overhead=True))
    assert times(charged, empty) == 1e-3


def test_huge_steps_do_not_overflow():
    bound = bind(llama())
    batch = StepBatch.from_csr(
        decode_offsets=[0, 3], decode_contexts=[2**40] * 3, decode_counts=[2**40] * 3,
        prefill_offsets=[0, 1], prefill_contexts=[2**40], prefill_new_tokens=[2**40],
    )  # fmt: skip
    got = parts(bound, batch)
    pair = 4 * 32 * 128 * 32
    assert got["memory"][0] > 3 * 2.0**80 * 131_072 / 3.35e12
    assert got["compute"][0] > 1.5 * 2.0**80 * pair / 989.5e12


def test_ring_all_reduces_cost_link_time():
    params = dataclasses.replace(OURS, tp_communication="ring")
    batch = StepBatch.uniform(prefill_batch=1, prefill_new_tokens=1000)
    expected = 2 * 32 * 2 * 3 / 4 * 1000 * 4096 * 2 / 450e9
    npt.assert_allclose(parts(bind(llama(), params, tp_size=4), batch)["comm"], expected, rtol=1e-12)
    assert parts(bind(llama(), params), batch)["comm"] == 0
    with pytest.raises(InputError, match="nvlink_bytes_per_s"):
        bind(llama(), params, dataclasses.replace(H100, nvlink_bytes_per_s=0.0), tp_size=2)


def test_attention_flops_of_chunks_add_up_to_one_prefill():
    bound = bind(llama())
    whole = bound.flops(ragged(([(0, 5000)], [])))["attention"]
    chunks = sum(bound.flops(ragged(([(p, n)], [])))["attention"] for p, n in ((0, 2048), (2048, 2048), (4096, 904)))
    npt.assert_allclose(chunks, whole, rtol=1e-14)


