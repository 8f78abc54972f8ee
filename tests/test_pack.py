"""Packed tables answer what the plain-Python definitions of `naive_step` say, in both batch forms."""

from __future__ import annotations

import math
import pickle

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import (
    MICRO,
    Tables,
    packed,
    prompts,
    ragged_batch,
    ragged_steps,
    requests,
    rising,
    rough,
    tables,
    uniform_batch,
    uniform_steps,
)

from mfuroof.batch import StepBatch
from mfuroof.core import step as kernel
from mfuroof.core._jit import jit
from mfuroof.costs.columns import ragged_columns, uniform_columns
from mfuroof.ops.curves import MAX_TOKENS

INSIDE = {"requests": 2, "tokens": 1}
"""Limits that keep every read inside the smallest synthetic grid."""


def times(tables: Tables, batch):
    out = np.empty(len(batch))
    if batch.form == "uniform":
        kernel.uniform_times(tables.total, *uniform_columns(batch.columns), out)
    else:
        kernel.ragged_times(tables.total, *ragged_columns(batch.columns), out)
    return out


def lanes(tables: Tables, batch):
    n = len(batch)
    out = np.empty((1 + len(tables.plain["tokens"]) + len(tables.plain["sequences"]) + 2, n))
    if batch.form == "uniform":
        kernel.uniform_lanes(tables.total, tables.parts, *uniform_columns(batch.columns), 0, n, out)
    else:
        kernel.ragged_lanes(tables.total, tables.parts, *ragged_columns(batch.columns), 0, n, out)
    npt.assert_array_equal(out[0], times(tables, batch))
    return out[1:]


def assert_parts(tables, batch, expected):
    """Compare each part, and their sum with the step time."""
    npt.assert_allclose(lanes(tables, batch).T, expected, rtol=1e-12, atol=0)
    npt.assert_allclose(times(tables, batch), [math.fsum(e) for e in expected], rtol=1e-12, atol=0)


@given(tables(), uniform_steps(tokens=2**20))
def test_uniform_matches_definition_on_and_beyond_the_grid(tables, steps):
    assert_parts(tables, uniform_batch(steps), [naive_step.uniform(tables.plain, *s) for s in steps])


@given(tables(), ragged_steps())
def test_ragged_matches_definition_on_and_beyond_the_grid(tables, steps):
    assert_parts(tables, ragged_batch(steps), [naive_step.ragged(tables.plain, *s) for s in steps])


@given(tables(rough, rows=(4, 4), columns=(6, 6)), uniform_steps(requests=8, tokens=15, prompts=8))
def test_uniform_matches_definition_on_noisy_tables(tables, steps):
    assert_parts(tables, uniform_batch(steps), [naive_step.uniform(tables.plain, *s) for s in steps])


@given(
    tables(rough, rows=(4, 4), columns=(6, 6)), st.lists(st.tuples(requests(2, 15, 3), prompts(1, 7, 2)), min_size=1)
)
def test_ragged_matches_definition_on_noisy_tables(tables, steps):
    assert_parts(tables, ragged_batch(steps), [naive_step.ragged(tables.plain, *s) for s in steps])


def test_one_count_and_one_flag_hold_for_all_groups():
    columns = {
        "decode_offsets": [0, 2, 3], "decode_contexts": [3, 7, 1], "prefill_offsets": [0, 2, 5],
        "prefill_contexts": [0, 2, 0, 4, 1], "prefill_new_tokens": [4, 2, 3, 1, 5],
    }  # fmt: skip
    whole = {"decode_counts": [1] * 3, "prefill_counts": [1] * 5, "prefill_emits": [1] * 5}
    found, expected = np.empty(2), np.empty(2)
    kernel.ragged_times(by_hand(), *ragged_columns(StepBatch.from_csr(**columns).columns), found)
    kernel.ragged_times(by_hand(), *ragged_columns(StepBatch.from_csr(**columns, **whole).columns), expected)
    npt.assert_array_equal(found, expected)


@given(tables(), uniform_steps(max_size=1))
def test_scalar_entry_equals_the_arrays(tables, steps):
    (db, dc, pb, pn, pc, emits), batch = steps[0], uniform_batch(steps)
    assert kernel.step_time(*tables.total, db, dc, pb, pn, pc, emits) == times(tables, batch)[0]


# ------------------------------------------------------------------ by hand


def by_hand(**changes):
    """Two knots, a decode grid of 10 us a request, a prefill of 5 us and 1 us a pair."""
    lengths = np.array([1.0, 2.0, 4.0, 8.0])
    plain = {
        "tokens": [([1, 3], [10e-6, 14e-6], 7e-6)],
        "sequences": [([1, 3], [1e-6, 3e-6], 1e-6)],
        "decode": [[10e-6 * b] * 4 for b in (1, 2, 4)],
        "prefill": [
            {
                "launch": [5e-6] * 3,
                "time": [list(5e-6 + 0.5e-6 * b * lengths**2) for b in (1, 2, 4)],
                "window": None,
                "kv_read_s": 0.0,
                "query_s": 0.0,
            }
        ],
        "blend": "affine_rate",
        "spread": False,
    } | changes
    return packed(plain, total=True)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((0, 0, 0, 0, 0, 1), 0.0),  # nothing to do takes no time
        ((1, 3, 0, 0, 0, 1), 10 + 1 + 10),
        ((2, 3, 0, 0, 0, 1), 12 + 2 + 20),  # half way between knots
        ((5, 3, 0, 0, 0, 1), 14 + 2 * 7 + 3 + 2 + 50),  # beyond the last knot and the last row
        ((0, 0, 1, 4, 0, 1), 14 + 7 + 1 + 5 + 8),
        ((0, 0, 1, 4, 0, 0), 14 + 7 + 0 + 5 + 8),  # a chunk that emits nothing needs no LM head
        ((0, 0, 1, 2, 2, 1), 12 + 1 + 5 + 8 * (16 - 4) / 16),  # behind a prefix: the launch, and the area's share
        ((0, 0, 2, 4, 0, 1), 14 + 5 * 7 + 2 + 5 + 16),
        ((0, 0, 3, 0, 9, 1), 0.0),  # prompts without new tokens do not run
        ((1, 3, 2, 4, 0, 1), 14 + 6 * 7 + 3 + 5 + 16 + 10),
    ],
)
def test_by_hand(shape, expected):
    assert kernel.step_time(*by_hand(), *shape) == pytest.approx(expected * MICRO, rel=1e-12, abs=0)


def test_chunk_is_never_faster_than_reading_its_cache():
    part = {"launch": [5e-6] * 3, "time": [[5e-6] * 4] * 3, "window": None, "kv_read_s": 2e-6, "query_s": 3e-6}
    time = kernel.step_time(*by_hand(prefill=[part]), 0, 0, 2, 1, 6, 0)
    assert time == pytest.approx((12 + 2 * (7 * 2 + 3)) * MICRO, rel=1e-12)  # 2 prompts: 7 read, 1 new
    windowed = part | {"window": 3}
    time = kernel.step_time(*by_hand(prefill=[windowed]), 0, 0, 2, 1, 6, 0)
    assert time == pytest.approx((12 + 2 * (4 * 2 + 3)) * MICRO, rel=1e-12)  # the window and the new token


def test_square_root_form_scales_the_whole_kernel():
    time = kernel.step_time(*by_hand(blend="sqrt"), 0, 0, 1, 2, 2, 0)
    assert time == pytest.approx((12 + (5 + 8) * 0.75) * MICRO, rel=1e-12)


def test_mixed_prompts_share_the_gpu():
    one = {"launch": [8e-6] * 3, "time": [[8e-6] * 4] * 3, "window": None, "kv_read_s": 0.0, "query_s": 0.0}
    batch = ragged_batch([([], [(1, 0, 4, 0), (2, 0, 2, 0)])])
    out = np.empty(1)
    kernel.ragged_times(by_hand(prefill=[one]), *ragged_columns(batch.columns), out)
    assert out[0] == pytest.approx((14 + 5 * 7 + 8) * MICRO, rel=1e-12)  # launch-bound: 8 us whatever the mix


def test_mixed_lengths_are_as_slow_as_their_longest_requests():
    grid = [[10e-6, 20e-6, 40e-6, 80e-6], [10.1e-6, 20.2e-6, 40.4e-6, 80.8e-6], [10.2e-6, 20.4e-6, 40.8e-6, 81.6e-6]]
    out = np.empty(1)
    batch = ragged_batch([([(1, 7), (1, 0)], [])])  # KV lengths 8 and 1: their mean would take 45.45 us
    kernel.ragged_times(by_hand(decode=grid), *ragged_columns(batch.columns), out)
    assert out[0] == pytest.approx((12 + 2 + 80) * MICRO, rel=1e-12)


@pytest.mark.parametrize("knots", [[1, MAX_TOKENS], [1, 2, 3], [1, 4352, 4353], [1, 17, 32, 33, 48, MAX_TOKENS]])
def test_knots_are_kept(knots):
    """Every count up to the last knot finds its segment: the values at knots, and straight lines between."""
    values = [(1 + k**0.7) * MICRO for k in knots]
    bound = by_hand(tokens=[(knots, values, 3e-9)], sequences=[(knots, [0.0] * len(knots), 0.0)])
    around = sorted({n for k in knots for n in (k - 1, k, k + 1)} | {MAX_TOKENS - 1, MAX_TOKENS + 1, 10 * MAX_TOKENS})
    segments, cells, layout = bound
    for n in around:
        found = kernel.curve(cells, layout[0] + 2 * kernel.segment_of(segments, float(n)), float(n))
        assert found == pytest.approx(naive_step.line((knots, values, 3e-9), n), rel=1e-12, abs=1e-22)


# ------------------------------------------------------------------ what the tables are


def test_tables_are_small_frozen_and_named():
    bound = by_hand()
    assert bound.layout.size == len(kernel.LAYOUT) == len(set(kernel.LAYOUT))
    assert bound.segments.size == MAX_TOKENS + 1
    assert all(not a.flags.writeable and a.flags.c_contiguous for a in bound)
    assert [a.dtype for a in bound] == [np.int16, np.float64, np.int64]


def test_pickled_tables_stay_frozen():
    again = pickle.loads(pickle.dumps(by_hand()))
    assert isinstance(again, kernel.StepTables)
    for a, b in zip(again, by_hand(), strict=True):
        npt.assert_array_equal(a, b)
        assert not a.flags.writeable


def test_callable_from_compiled_code_of_others():
    @jit
    def slowest(tables, batches):
        worst = 0.0
        for b in batches:
            worst = max(
                worst, kernel.step_time(tables.segments, tables.cells, tables.layout, b, 3.0, 0.0, 0.0, 0.0, 1.0)
            )
        return worst

    assert slowest(by_hand(), np.array([1.0, 2.0, 0.0])) == pytest.approx(34 * MICRO, rel=1e-12)


@given(rising(3, 4))
def test_rising_grids_rise_everywhere(grid):
    """The strategy makes what the laws need: no fall inside the grid, and none beyond."""
    plain = grid.tolist()
    axis = [1, 2, 3, 4, 5, 8, 100, 2**30]
    values = [[naive_step.decode(plain, b, kv) for kv in axis] for b in axis]
    assert (np.diff(values, axis=0) >= -1e-9).all()
    assert (np.diff(values, axis=1) >= -1e-9).all()
