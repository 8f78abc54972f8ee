"""From measured rows to curves and grids, against the definitions of `naive_step`; and the list of what a step runs."""

from __future__ import annotations

import math

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import LLAMA_8B, LLAMA_70B, MICRO, evaluator

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MissingTableError, TableFormatError
from mfuroof.ops.comm import collective_curve
from mfuroof.ops.curves import MAX_TOKENS, Curve, affine_curve
from mfuroof.ops.elementwise import elementwise
from mfuroof.ops.gemm import GemmTable
from mfuroof.ops.lattice import (
    BATCH_OCTAVES,
    LENGTH_OCTAVES,
    PREFILL_BATCH_OCTAVES,
    decode_grid,
    prefill_grid,
    rising,
    rising_prefill,
)
from mfuroof.ops.rooflines import GemmRoofline
from mfuroof.ops.transformer import check_parallel
from mfuroof.parallel import Parallel

GPU = (2.0, 2.0, 1e12, 1e9)
"""Bytes per weight and activation, peak, bandwidth: a ridge at 1,000 FLOP/byte, so small shapes are memory-bound."""

# ------------------------------------------------------------------ curves


def curve(knots=(1, 4, 16), times=(1.0, 4.0, 10.0), beyond=2.0, codes=(0, 0, 4)):
    return Curve(np.array(knots, float), np.array(times), beyond, np.array(codes, np.uint8))


def test_curve_by_hand():
    counts = np.array([0, 1, 2, 4, 10, 16, 17, 100], float)
    npt.assert_allclose(curve().at(counts), [1, 1, 2, 4, 7, 10, 12, 178])
    between, far = Source.INTERPOLATED, Source.SUBSTITUTED
    npt.assert_array_equal(curve().source_at(counts[1:]), [0, between, 0, far, far, far, far])
    npt.assert_array_equal(curve(codes=(0, 0, 0)).source_at(counts[1:]), [0, 1, 0, 1, 0, 3, 3])
    npt.assert_allclose(
        curve().distance_at(np.array([1, 2, 3, 4, 10, 64.0])), [0, 1, math.log2(4 / 3), 0, math.log2(1.6), 2]
    )


def test_affine_curve_is_a_line():
    line = affine_curve(3e-6, 2e-9)
    counts = np.array([1.0, 7, MAX_TOKENS, 10 * MAX_TOKENS])
    npt.assert_allclose(line.at(counts), 3e-6 + 2e-9 * counts, rtol=1e-12)
    assert not line.measured


def test_elementwise_by_hand():
    op = elementwise("norm", 64, 8.0 * 4096, hbm_bytes_per_s=3.35e12, efficiency=0.8, launch_s=3e-6)
    npt.assert_allclose(
        op.curve.at(np.array([1.0, 32])), [3e-6 + n * 8 * 4096 / (0.8 * 3.35e12) for n in (1, 32)], rtol=1e-12
    )
    assert (op.count, op.axis, op.resource, op.bytes_per_count) == (64, "tokens", "memory", 8 * 4096)


# ------------------------------------------------------------------ GEMM

lines = st.sampled_from([2, 4, 8, 32, 128])
shapes = st.sampled_from([1, 2, 3, 4, 6, 8, 12, 48, 100, 256])
site_curves = st.dictionaries(
    st.sampled_from([1, 2, 3, 8, 64]), st.integers(1, 2000).map(lambda t: t * MICRO), min_size=1
)


def gemm_table(sites, **changes):
    rows = [(n, k, m, t) for (n, k), points in sorted(sites.items()) for m, t in sorted(points.items())]
    n, k, m, t = (np.array(column) for column in zip(*rows, strict=True))
    weight, activation, peak, bandwidth = GPU
    gpu = GemmRoofline(peak, bandwidth, weight, activation)
    return GemmTable(label="test GEMM", n=n, k=k, m=m, latency_s=t, **{"measured_on": gpu, "wanted": gpu} | changes)


def with_common_m(sites):
    """Every site measured at the same m, as the tables are: no site is read beyond its end."""
    common = sorted({m for points in sites.values() for m in points})
    times = {site: list(points.values()) for site, points in sites.items()}
    return {site: {m: ts[i % len(ts)] for i, m in enumerate(common)} for site, ts in times.items()}


gemm_sites = st.dictionaries(st.tuples(lines, lines), site_curves, min_size=1, max_size=9).map(with_common_m)


@given(gemm_sites, shapes, shapes, st.sampled_from([0, 1, 2, 4]))
def test_gemm_matches_definition(sites, n, k, neighbours):
    table = gemm_table(sites)
    far = min(math.hypot(math.log2(a / n), math.log2(b / k)) for a, b in sites)
    past_n = n > max(a for a, _ in sites) or n < min(a for a, _ in sites)
    past_k = k > max(b for _, b in sites) or k < min(b for _, b in sites)
    if far > 2 and past_n == past_k:
        with pytest.raises(MissingTableError, match=f"GEMM n={n}, k={k} in test GEMM"):
            table.curve(n, k, neighbours)
        return
    found = table.curve(n, k, neighbours)
    for m, time in zip(found.knots, found.time_s, strict=True):
        assert time == pytest.approx(naive_step.gemm(sites, n, k, m, GPU, neighbours), rel=1e-11)
    assert (found.source == (Source.EXACT if (n, k) in sites else Source.INTERPOLATED)).all()


@given(gemm_sites)
def test_measured_sites_are_read_verbatim_but_never_beat_the_roofline(sites):
    for (n, k), points in sites.items():
        found = gemm_table(sites).curve(n, k)
        assert found.knots.tolist() == sorted(points)
        limit = [naive_step.roofline(m, n, k, GPU) for m in found.knots]
        npt.assert_array_equal(found.time_s, np.maximum([points[m] for m in sorted(points)], limit))


@given(gemm_sites, shapes, shapes)
def test_utilisation_is_held_beyond_the_last_token_count(sites, n, k):
    try:
        found = gemm_table(sites).curve(n, k)
    except MissingTableError:
        return
    last = found.knots[-1]
    held = naive_step.roofline(2 * last, n, k, GPU) / naive_step.roofline(last, n, k, GPU)
    assert found.at(np.array([2 * last]))[0] == pytest.approx(found.time_s[-1] * held, rel=1e-9)


def test_gemm_of_another_gpu_holds_utilisation_and_says_so():
    sites = {(4, 4): {1: 50 * MICRO, 8: 60 * MICRO}}
    slow = GemmRoofline(GPU[2], GPU[3] / 2, 2.0, 2.0)
    here, there = gemm_table(sites).curve(4, 4), gemm_table(sites, wanted=slow, stand_in=True).curve(4, 4)
    npt.assert_allclose(there.time_s, 2 * here.time_s)  # memory-bound: half the bandwidth, twice the time
    assert (there.source == Source.SUBSTITUTED).all()


def test_far_shapes_are_missing_unless_one_axis_alone_is_past_its_end():
    sites = {(n, k): {1: MICRO} for n in (32, 64) for k in (32, 64)}
    assert gemm_table(sites).curve(1024, 64).time_s.size == 1  # a vocabulary is wider than anything measured
    with pytest.raises(MissingTableError) as caught:
        gemm_table(sites).curve(1024, 1024)
    for part in ("GEMM n=1024, k=1024", "4 sites, n 32..64, k 32..64", "5.7 octaves away", 'missing="roofline"'):
        assert part in str(caught.value)


# ------------------------------------------------------------------ collectives


@given(
    st.dictionaries(st.integers(1, 2**20), st.integers(1, 100), min_size=2, max_size=6),
    st.sampled_from([1, 64, 8192]),
    st.lists(st.integers(1, MAX_TOKENS), min_size=1, max_size=5),
)
def test_collective_matches_definition(measured, elements_per_token, tokens):
    sizes = sorted(measured)
    latency = [measured[s] * MICRO for s in sizes]
    found = collective_curve(np.array(sizes, float), np.array(latency), elements_per_token)
    expected = [naive_step.collective(sizes, latency, elements_per_token, t) for t in tokens]
    npt.assert_allclose(found.at(np.array(tokens, float)), expected, rtol=1e-9)
    assert found.beyond_s >= 0
    assert found.knots[0] == 1


# ------------------------------------------------------------------ attention grids


@st.composite
def frontiers(draw, rows, first=0):
    """Times at powers of two inside a frontier batch * length <= limit, some of them missing, batch 1 complete."""
    tallest, longest = draw(st.integers(0, rows - 2)), draw(st.integers(first + 1, 10))
    limit = draw(st.integers(longest, longest + tallest))
    inside = [(i, j) for i in range(tallest + 1) for j in range(first, longest + 1) if i + j <= limit]
    holes = draw(st.sets(st.sampled_from([p for p in inside if p[0] > 0] or [(0, 99)]), max_size=3))
    times = draw(st.lists(st.integers(1, 999), min_size=len(inside), max_size=len(inside)))
    return {p: t * MICRO for p, t in zip(inside, times, strict=True) if p not in holes}


def columns_of(measured):
    batch, length = (2 ** np.array(axis) for axis in zip(*measured, strict=True))
    return batch, length, np.array(list(measured.values()))


@given(frontiers(8, first=1))
def test_decode_frontier_matches_definition(measured):
    found = decode_grid(*columns_of(measured), monotone=False)
    npt.assert_allclose(found.time_s, naive_step.decode_frontier(measured, BATCH_OCTAVES, LENGTH_OCTAVES), rtol=1e-9)
    for (i, j), time in measured.items():
        assert found.time_s[i, j] == time
        assert found.source[i, j] == Source.EXACT
    assert (found.source == Source.EXACT).sum() == len(measured)


@pytest.mark.parametrize("blend", ["affine_rate", "sqrt"])
@given(measured=frontiers(6))
def test_prefill_frontier_matches_definition(blend, measured):
    found = prefill_grid(*columns_of(measured), monotone=False, blend=blend)
    expected = naive_step.prefill_frontier(measured, PREFILL_BATCH_OCTAVES, LENGTH_OCTAVES, blend)
    npt.assert_allclose(found.time_s, expected, rtol=1e-9)
    npt.assert_allclose(found.launch_s, np.array(expected)[:, 0], rtol=1e-9)
    for (i, j), time in measured.items():
        assert found.time_s[i, j] == pytest.approx(time, rel=1e-12)
        assert found.source[i, j] == Source.EXACT


@given(frontiers(8, first=1))
def test_repaired_decode_grid_rises_and_holds_no_gaps(measured):
    found = decode_grid(*columns_of(measured), monotone=True).time_s
    assert np.isfinite(found).all()
    assert (found > 0).all()
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()


@given(frontiers(6))
def test_repaired_prefill_grid_rises_per_token_and_holds_no_gaps(measured):
    found = prefill_grid(*columns_of(measured), monotone=True, blend="affine_rate")
    rate = (found.time_s - found.launch_s[:, None]) / 2.0 ** np.arange(LENGTH_OCTAVES)
    slack = 1e-12 * found.time_s.max(axis=1, keepdims=True)
    assert np.isfinite(found.time_s).all()
    assert (found.time_s > 0).all()
    assert (np.diff(found.launch_s) >= 0).all()
    assert (np.diff(rate, axis=1) >= -slack / 2.0 ** np.arange(LENGTH_OCTAVES)[1:]).all()
    assert (np.diff(found.time_s, axis=0) >= -slack[1:]).all()


def test_points_off_the_lattice_are_left_out():
    measured = {(0, 1): 5 * MICRO, (0, 2): 6 * MICRO}
    batch, length, times = columns_of(measured)
    extra = [np.append(column, more) for column, more in ((batch, [1, 3]), (length, [3, 4]), (times, [1.0, 1.0]))]
    npt.assert_array_equal(
        decode_grid(*extra, monotone=False).time_s, decode_grid(batch, length, times, monotone=False).time_s
    )


@pytest.mark.parametrize("measured", [{(1, 2): MICRO, (1, 3): MICRO}, {(0, 2): MICRO}])
@pytest.mark.parametrize(
    "read", [decode_grid, lambda *rows, monotone: prefill_grid(*rows, monotone=monotone, blend="sqrt")]
)
def test_attention_tables_need_a_row_for_one_request(measured, read):
    with pytest.raises(TableFormatError, match="lengths for one request"):
        read(*columns_of(measured), monotone=True)


noisy_grids = st.integers(2, 5).flatmap(
    lambda n: st.lists(st.lists(st.integers(1, 99).map(float), min_size=n, max_size=n), min_size=2, max_size=5)
)


def continued(grid, rows=4, columns=4):
    """Read a grid some octaves beyond its ends, as the kernels do."""
    plain = grid.tolist()
    b, kv = 2.0 ** np.arange(len(grid) + rows), 2.0 ** np.arange(grid.shape[1] + columns)
    return np.array([[naive_step.decode(plain, x, y) for y in kv] for x in b])


@pytest.mark.parametrize("floor", [0.0, 1.0, 20.0])
@given(grid=noisy_grids)
def test_rising_grids_rise_on_and_beyond_the_lattice_and_stay_above_their_floor(floor, grid):
    grid = np.array(grid)
    limit = floor * 2.0 ** np.arange(grid.shape[0])[:, None] * 2.0 ** np.arange(grid.shape[1])
    found = continued(rising(grid, limit))
    slack = 1e-9 * found.max()
    assert (np.diff(found, axis=0) >= -slack).all()
    assert (np.diff(found, axis=1) >= -slack).all()
    assert (found >= continued(limit) * (1 - 1e-9)).all()


@given(noisy_grids, st.data())
def test_rising_takes_any_floor(grid, data):
    """One that falls itself still holds, and what stands on it rises."""
    size = np.array(grid).size
    floor = np.array(data.draw(st.lists(st.integers(1, 99), min_size=size, max_size=size)), float)
    found = rising(np.array(grid), floor.reshape(np.shape(grid)))[:-1, :-1]
    assert (found >= floor.reshape(np.shape(grid))[:-1, :-1]).all()
    assert (np.diff(found, axis=0) >= 0).all()
    assert (np.diff(found, axis=1) >= 0).all()


@given(noisy_grids)
def test_rising_keeps_what_rises_inside(grid):
    grid = np.maximum.accumulate(np.maximum.accumulate(np.array(grid), axis=0), axis=1)
    found = rising(grid, np.zeros_like(grid))
    npt.assert_array_equal(found[:-1, :-1], grid[:-1, :-1])
    assert (found >= grid).all()


@given(noisy_grids)
def test_rising_prefill_rises_per_token(grid):
    time, lengths = np.array(grid), 2.0 ** np.arange(len(grid[0]))
    launch, found = rising_prefill(time[:, 0], time, np.zeros_like(time))
    assert (np.diff(launch) >= 0).all()
    assert (found >= launch[:, None] - 1e-9).all()
    assert (np.diff((found - launch[:, None]) / lengths, axis=1) >= -1e-9).all()
    assert (np.diff(found, axis=0) >= -1e-9).all()


def test_gaps_of_the_unknown_stay_unknown():
    grid = np.array([[1.0, np.nan], [3.0, 2.0]])
    npt.assert_array_equal(rising(grid, np.zeros((2, 2))), grid)
    launch, time = rising_prefill(np.array([1.0, 1.0]), grid, np.zeros((2, 2)))
    npt.assert_array_equal(time, grid)
    npt.assert_array_equal(launch, 1.0)


# ------------------------------------------------------------------ what a step runs


def test_operations_of_a_dense_model():
    ops = {op.name: op for op in evaluator("8B on H100", "aic").bound.work.run.ops}
    layers = {
        "qkv_gemm": (6144, 4096),
        "o_gemm": (4096, 4096),
        "gate_up_gemm": (28672, 4096),
        "down_gemm": (4096, 14336),
    }
    for name, (n, k) in layers.items():
        op = ops.pop(name)
        assert (op.count, op.axis, op.flops_per_count, op.fixed_bytes) == (32, "tokens", 2 * n * k, 2 * n * k), name
        assert op.bytes_per_count == 2 * (n + k)
    head = ops.pop("lm_head")
    assert (head.count, head.axis, head.flops_per_count) == (1, "sequences", 2 * 128256 * 4096)
    traffic = {"embedding": (1, 2 * 4096), "norm": (64, 8 * 4096), "activation": (32, 2 * 3 * 14336)}
    for name, (count, bytes_per_token) in traffic.items():
        op = ops.pop(name)
        assert (op.count, op.axis, op.bytes_per_count) == (count, "tokens", bytes_per_token), name
    assert not ops


def test_operations_of_a_rank():
    run = evaluator("70B fp8 on 4 H100", "aic").bound.work.run
    ops = {op.name: op for op in run.ops}
    shapes = {
        "qkv_gemm": (2560, 8192),
        "o_gemm": (8192, 2048),
        "gate_up_gemm": (14336, 8192),
        "down_gemm": (8192, 7168),
    }
    for name, (n, k) in shapes.items():
        assert (ops[name].count, ops[name].flops_per_count) == (80, 2 * n * k)
        assert ops[name].fixed_bytes == pytest.approx(n * k, rel=1e-3)  # one byte a weight, and a scale or more
        assert ops[name].peak_flops_per_s == pytest.approx(2 * ops["lm_head"].peak_flops_per_s, rel=1e-3)
    assert ops["lm_head"].flops_per_count == 2 * 128256 / 4 * 8192
    assert (ops["all_reduce"].count, ops["all_reduce"].resource) == (161, "comm")
    (attention,) = run.attention
    assert (attention.count, attention.shape.heads, attention.shape.kv_heads) == (80, 16, 2)
    assert attention.shape.kv_bytes_per_token == 2 * 2 * 128  # fp8


@pytest.mark.parametrize(("tp", "kv_heads"), [(1, 8), (8, 1), (16, 1), (64, 1)])
def test_kv_heads_are_replicated_where_ranks_outnumber_them(tp, kv_heads):
    ev = mr.StepEvaluator(LLAMA_70B, "h100_sxm", tp_size=tp, params=mr.CostParams(missing="roofline"))
    assert ev.bound.work.run.attention[0].shape.kv_heads == kv_heads
    assert ev.bound.work.run.attention[0].shape.heads == 64 // tp


def test_ranks_must_divide_the_model():
    model = mr.get_model(LLAMA_8B)
    for tp in (1, 2, 8, 32):
        check_parallel(model, Parallel(tp))
    for tp, part in ((3, "32 attention heads"), (5, "MLP width 14336"), (64, "32 attention heads")):
        with pytest.raises(InputError, match=part):
            check_parallel(model, Parallel(tp))
    with pytest.raises(InputError) as caught:
        check_parallel(model, Parallel(3))
    assert len(caught.value.problems) == 3  # heads, KV heads and width, all in one report
