"""Rows to compiled tables and back: nothing is lost but repeats, which become their median and are counted."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict

import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError
from mfuroof.tables.compile import compile_1d, compile_2d, compile_matrix, compile_sites, decompile
from mfuroof.tables.compiled import GemmSites, Table1D, Table2D

key = st.integers(0, 5).map(float)
value = st.floats(-1e6, 1e6)


def medians(rows):
    """Sorted {key: median of its values}, as the standard library computes it."""
    groups = defaultdict(list)
    for *keys, v in rows:
        groups[tuple(keys)].append(v)
    return {k: statistics.median(groups[k]) for k in sorted(groups)}


def assert_decompiles(table, expected, repeats):
    *keys, values = decompile(table).values()
    npt.assert_array_equal(np.column_stack(keys), np.array(list(expected)).reshape(len(expected), -1))
    npt.assert_allclose(values, list(expected.values()), rtol=1e-15)
    assert len(table) == len(expected) and table.merged == repeats


@given(st.lists(st.tuples(key, value), min_size=1))
def test_curve_round_trip(rows):
    table = compile_1d("x", *zip(*rows, strict=True))
    expected = medians(rows)
    assert_decompiles(table, expected, len(rows) - len(expected))


@given(st.lists(st.tuples(key, key, value), min_size=1))
def test_grid_round_trip(rows):
    table = compile_2d(("y", "x"), *zip(*rows, strict=True))
    expected = medians(rows)
    assert_decompiles(table, expected, len(rows) - len(expected))


@given(st.lists(st.tuples(key, key, key, value), min_size=1))
def test_sites_round_trip(rows):
    m, k, n, values = zip(*rows, strict=True)
    table = compile_sites(m, k, n, values)
    expected = medians(zip(k, n, m, values, strict=True))
    assert_decompiles(table, expected, len(rows) - len(expected))


@given(st.lists(st.tuples(key, value), min_size=1, unique_by=lambda r: r[0]))
def test_distinct_rows_come_back_to_the_last_bit(rows):
    columns = decompile(compile_1d("x", *zip(*rows, strict=True)))
    assert list(zip(*columns.values(), strict=True)) == sorted(rows)


def test_repeats_become_their_median():
    table = compile_1d("x", [2, 1, 2, 2, 1], [5.0, 1.0, 1.0, 3.0, 2.0])
    npt.assert_array_equal(table.values, [1.5, 3.0])
    assert table.merged == 3


def test_table_sorts_its_points():
    npt.assert_array_equal(Table1D("x", np.array([3.0, 1.0]), np.array([30.0, 10.0])).values, [10.0, 30.0])


def test_matrix_keeps_zeros_and_drops_holes():
    columns = decompile(compile_matrix(("y", "x"), [2, 1], [10, 20], [[0.0, math.nan], [1.0, 2.0]]))
    npt.assert_array_equal(columns["y"], [1, 1, 2])
    npt.assert_array_equal(columns["values"], [1, 2, 0])


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: compile_1d("tokens", [], []), "tokens"),
        (lambda: compile_1d("tokens", [1, 2], [1.0]), "equal lengths"),
        (lambda: compile_1d("tokens", [1, math.nan], [1.0, 2.0]), r"tokens\[1\]"),
        (lambda: compile_1d("tokens", [1, 2], [1.0, math.inf]), r"values\[1\]"),
        (lambda: compile_1d("tokens", ["one"], [1.0]), "numeric"),
        (lambda: compile_1d("tokens", [[1]], [[1.0]]), "one dimension"),
        (lambda: compile_1d("tokens", [1e200], [1.0]), "1e\\+150"),
        (lambda: compile_matrix(("y", "x"), [1, 2], [1], [[1.0]]), "matrix"),
        (lambda: compile_matrix(("y", "x"), [1], [1], [[math.nan]]), "at least one row"),
        (lambda: Table1D("x", np.array([1.0, 1.0]), np.array([1.0, 2.0])), "1 twice"),
        (lambda: Table1D("x", np.array([1.0]), np.array([1.0, 2.0])), "equal lengths"),
        (lambda: Table2D(("y", "x"), [1, 1], [0, 1, 2], [1, 1], [1, 2]), "1 after 1"),
        (lambda: Table2D(("y", "x"), [1, 2], [0, 2, 3], [2, 1, 1], [1, 2, 3]), "ascending"),
        (lambda: Table2D(("y", "x"), [1, 2], [0, 0, 2], [1, 2], [1, 2]), "offsets"),
        (lambda: Table2D(("y", "x"), [1, 2], [0.0, 1.0, 2.0], [1, 2], [1, 2]), "offsets"),
        (lambda: GemmSites([2, 1], [1, 1], [0, 1, 2], [1, 1], [1, 2]), r"\(k, n\)"),
        (lambda: GemmSites([1, 1], [1, 2], [0, 2, 3], [2, 1, 1], [1, 2, 3]), "gemm m"),
        (lambda: GemmSites([1], [1, 2], [0, 1], [1], [1]), "equal lengths"),
    ],
)
def test_what_is_no_table_says_why(build, text):
    with pytest.raises(InputError, match=text):
        build()
