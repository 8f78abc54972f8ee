"""Isotonic repair against its definition in `naive_step` and against SciPy."""

from __future__ import annotations

import naive_step
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.core.isotonic import isotonic, isotonic_grid
from mfuroof.ops.lattice import MAX_ROUNDS, TOLERANCE

times = st.one_of(st.integers(1, 6).map(float), st.floats(1e-6, 1e-3))  # ties and noise
sequences = st.lists(times, min_size=1, max_size=14)
grids = st.integers(1, 5).flatmap(lambda n: st.lists(st.lists(times, min_size=n, max_size=n), min_size=1, max_size=5))


def fit(values):
    out = np.full(len(values), np.nan)
    isotonic(np.array(values, dtype=np.float64), out)
    return out


def fit_grid(values, rounds=MAX_ROUNDS, tolerance=TOLERANCE):
    grid = np.array(values, dtype=np.float64)
    return isotonic_grid(grid, rounds, tolerance), grid


def assert_rising(grid):
    assert (np.diff(grid, axis=0) >= 0).all()
    assert (np.diff(grid, axis=1) >= 0).all()


@given(sequences)
def test_matches_definition(values):
    npt.assert_allclose(fit(values), naive_step.isotonic(values), rtol=1e-12)


@given(sequences)
def test_matches_scipy(values):
    optimize = pytest.importorskip("scipy.optimize")
    npt.assert_allclose(fit(values), optimize.isotonic_regression(values).x, rtol=1e-12)


@given(sequences)
def test_rises_exactly_and_keeps_the_mean(values):
    found = fit(values)
    assert (np.diff(found) >= 0).all()
    assert found.mean() == pytest.approx(np.mean(values), rel=1e-12)
    assert min(values) <= found.min() <= found.max() <= max(values)


@given(sequences)
def test_what_rises_is_kept_verbatim(values):
    npt.assert_array_equal(fit(sorted(values)), sorted(values))
    found = fit(values)
    npt.assert_array_equal(fit(found), found)


@given(sequences, st.data())
def test_order_is_kept(values, data):
    """What is slower everywhere stays slower: more layers never make a repaired curve faster."""
    more = data.draw(st.lists(st.floats(0, 1e-3), min_size=len(values), max_size=len(values)))
    slower = [v + m for v, m in zip(values, more, strict=True)]
    assert (fit(slower) >= fit(values) * (1 - 1e-14)).all()


def test_by_hand():
    npt.assert_array_equal(fit([1, 3, 2, 4]), [1, 2.5, 2.5, 4])
    npt.assert_array_equal(fit([4, 3, 2, 1]), [2.5] * 4)
    npt.assert_array_equal(fit([1, 5, 4, 3, 6]), [1, 4, 4, 4, 6])
    npt.assert_array_equal(fit([7]), [7])


@given(sequences)
def test_input_is_not_written(values):
    frozen = np.array(values)
    frozen.flags.writeable = False
    before = frozen.copy()
    isotonic(frozen, np.empty(frozen.size))
    npt.assert_array_equal(frozen, before)


# ------------------------------------------------------------------ grids


@given(grids)
def test_grid_rises_exactly_along_both_axes(values):
    rounds, found = fit_grid(values)
    assert_rising(found)
    assert 1 <= rounds <= MAX_ROUNDS
    assert np.min(values) <= found.min() <= found.max() <= np.max(values)


@given(grids)
def test_grid_matches_definition(values):
    """A few rounds compared step by step; at the end of many both have settled anyway."""
    for rounds in (1, 3):
        _, found = fit_grid(values, rounds)
        npt.assert_allclose(found, naive_step.isotonic_grid(values, rounds, TOLERANCE), rtol=1e-12)


@given(grids)
def test_rising_grid_is_kept_verbatim(values):
    rising = np.maximum.accumulate(np.maximum.accumulate(np.array(values), axis=0), axis=1)
    rounds, found = fit_grid(rising)
    npt.assert_array_equal(found, rising)
    assert rounds == 1


@given(grids)
def test_a_running_maximum_ends_it(values):
    """However few rounds there are: none leaves the maximum of everything smaller."""
    _, found = fit_grid(values, 0)
    expected = np.maximum.accumulate(np.maximum.accumulate(np.array(values), axis=0), axis=1)
    npt.assert_array_equal(found, expected)


def test_grid_by_hand():
    _, found = fit_grid([[1.0, 2.0], [3.0, 2.0]])  # the second row falls, its mean fits the columns
    npt.assert_array_equal(found, [[1.0, 2.0], [2.5, 2.5]])
    _, found = fit_grid([[5.0, 1.0]])
    npt.assert_array_equal(found, [[3.0, 3.0]])
    _, found = fit_grid([[5.0], [1.0]])
    npt.assert_array_equal(found, [[3.0], [3.0]])


def test_rounds_end_when_nothing_moves_or_when_they_are_used_up():
    noisy = 1.0 + np.random.default_rng(0).random((6, 6))
    once, _ = fit_grid(noisy, 1)
    many, _ = fit_grid(noisy)
    assert once == 1 < many < MAX_ROUNDS
