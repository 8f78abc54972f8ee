"""Lookups against their definitions in `naive`, on and off the grid, for every rule and policy."""

from __future__ import annotations

import math
import pickle
import re

import naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    cells,
    coordinates,
    curves,
    positive_coordinates,
    queries,
    sites,
    table_of_cells,
    table_of_sites,
    tables_1d,
    wide_coordinates,
)

from mfuroof import lookup
from mfuroof.core import gemm as gemm_kernels
from mfuroof.core import grid as grid_kernels
from mfuroof.core import lookup as kernels
from mfuroof.core import search
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, UnknownNameError
from mfuroof.tables.compile import compile_2d, compile_matrix, compile_sites
from mfuroof.tables.compiled import GemmSites, Table1D, Table2D

RULES = sorted(lookup.RULES)
POLICIES = {"own": None, "clamp": "clamp", "blank": "nan"}
CURVE = Table1D("seq_len", np.array([1024.0, 4096.0, 8192.0]), np.array([0.5, 0.6, 0.7]))


def points_for(rule):
    return positive_coordinates if rule == "loglog" else coordinates


def assert_details(found, expected, queries_by_axis, points_by_axis):
    """Compare values exactly but for the last bits of logarithms, sources exactly, distances to 1e-9."""
    npt.assert_allclose(found.values, [e[0] for e in expected], rtol=1e-13)
    npt.assert_array_equal(found.source, [naive.CODES[e[1]] for e in expected])
    for i, e in enumerate(expected):
        if e[1] == naive.MISSING:
            assert math.isnan(found.distance[i])
        else:
            axes = zip(queries_by_axis, points_by_axis(e), strict=True)
            npt.assert_allclose(found.distance[i], max(naive.octaves(q[i], p) for q, p in axes), rtol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_curve_matches_definition(rule, data):
    points = data.draw(curves(points_for(rule)))
    table = Table1D("x", np.array(list(points)), np.array(list(points.values())))
    x = data.draw(queries(points))
    for policy, outside in POLICIES.items():
        expected = [naive.curve(points, rule, policy, q) for q in x]
        found = lookup.read(table, x, rule=rule, outside=outside, details=True)
        assert_details(found, expected, [x], lambda e: e[2:3])
        values = lookup.read(table, x, rule=rule, outside=outside)  # the fast paths
        npt.assert_array_equal(values, found.values)


@given(st.data())
def test_floor_matches_definition_on_any_floats(data):
    """Denormals, huge numbers, negative grids and points one bit apart: the direct-address index is exact."""
    table = data.draw(tables_1d(st.one_of(wide_coordinates, coordinates)))
    x = data.draw(queries(table.grid))
    npt.assert_array_equal(lookup.floor(table, x), naive.floor(table.grid, table.values, x))


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200, unique=True), st.data())
def test_floor_index_takes_several_points_a_bucket(grid, data):
    table = Table1D("x", np.array(grid), np.arange(len(grid), dtype=float))
    x = data.draw(queries(table.grid))
    npt.assert_array_equal(lookup.floor(table, x), naive.floor(table.grid, table.values, x))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30)  # each stands for nine pairs of policies
@given(data=st.data())
def test_grid_matches_definition(rule, data):
    points = data.draw(cells(points_for(rule)))
    table = table_of_cells(points)
    y = data.draw(queries([r for r, _ in points], max_size=6))
    x = data.draw(st.one_of(queries([c for _, c in points], max_size=len(y)), st.just([1.0])))
    size = min(len(y), len(x))
    y, x = y[:size], x[:size]
    for policy_y, outside_y in POLICIES.items():
        for policy_x, outside_x in POLICIES.items():
            expected = [naive.grid(points, rule, policy_y, policy_x, b, a) for b, a in zip(y, x, strict=True)]
            outside = (outside_y, outside_x)
            found = lookup.read(table, y, x, rule=rule, outside=outside, details=True)
            assert_details(found, expected, [y, x], lambda e: e[2:4])
            npt.assert_array_equal(lookup.read(table, y, x, rule=rule, outside=outside), found.values)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=30)
@given(data=st.data())
def test_gemm_matches_definition(rule, data):
    points = data.draw(sites())
    table = table_of_sites(points)
    m = data.draw(queries({m for curve in points.values() for m in curve}, max_size=6))
    weight = st.sampled_from([1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, math.nan])
    k, n = (data.draw(st.lists(weight, min_size=len(m), max_size=len(m))) for _ in "kn")
    for policy_site, outside_site in POLICIES.items():
        for policy_m, outside_m in POLICIES.items():
            shapes = zip(m, k, n, strict=True)
            expected = [naive.gemm(points, rule, policy_site, policy_m, *shape) for shape in shapes]
            outside = (outside_site, outside_m)
            found = lookup.read(table, m, k, n, rule=rule, outside=outside, details=True)
            assert_details(found, expected, [m, k, n], lambda e: (e[2], *e[3]))
            npt.assert_array_equal(lookup.read(table, m, k, n, rule=rule, outside=outside), found.values)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_measured_points_come_back_verbatim(rule, data):
    points = data.draw(cells(points_for(rule)))
    y, x = zip(*points, strict=True)
    found = lookup.read(table_of_cells(points), y, x, rule=rule, details=True)
    npt.assert_array_equal(found.values, list(points.values()))
    assert not found.source.any() and not found.distance.any()


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_curve_values_stay_in_their_bracket(rule, data):
    table = data.draw(tables_1d(points_for(rule), min_size=2))
    j = data.draw(st.integers(0, len(table) - 2))
    x = data.draw(st.lists(st.floats(table.grid[j], table.grid[j + 1]), min_size=2))
    values = lookup.read(table, sorted(x), rule=rule)
    v0, v1 = table.values[j : j + 2]
    assert ((min(v0, v1) <= values) & (values <= max(v0, v1))).all()
    rises = np.diff(values) * np.sign(v1 - v0) >= 0
    assert rises.all() or rule == "loglog"  # exp and log of the compiled library are not monotone to the last bit


def test_floor_sawtooth_breaks_monotonicity_and_linear_does_not():
    """Latency from a floor MFU falls when tokens are added across a grid point; the linear blend never does."""
    tokens = np.array([16.0, 32.0, 64.0])
    latency = np.array([59.4e-6, 59.5e-6, 59.7e-6])
    mfu = Table1D("tokens", tokens, tokens / latency)
    asked = np.arange(16, 65)
    by_floor = asked / lookup.floor(mfu, asked)
    by_linear = lookup.linear(Table1D("tokens", tokens, latency), asked)
    assert (np.diff(by_floor) < 0).any() and by_floor.max() > 1.9 * latency.max()
    assert (np.diff(by_linear) >= 0).all()


@given(tables_1d(positive_coordinates), st.data())
def test_hold_keeps_the_utilisation_of_the_edge(table, data):
    x = data.draw(queries(table.grid))

    def roofline(tokens):
        return np.clip(tokens, 8.0, 1e200)

    found = lookup.linear(table, np.abs(x), outside="hold", roofline=roofline, details=True)
    clamped = lookup.linear(table, np.abs(x), outside="clamp", details=True)
    edge = np.clip(np.abs(x), table.grid[0], table.grid[-1])
    ratio = roofline(np.abs(x)) / roofline(edge)
    npt.assert_allclose(found.values, clamped.values * ratio, rtol=1e-14)
    npt.assert_array_equal(found.source == Source.EXTRAPOLATED, clamped.source == Source.CLAMPED)


@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
def test_hold_scales_from_the_edge_of_a_grid(rule, data):
    points = data.draw(cells(points_for(rule)))
    table = table_of_cells(points)
    shapes = data.draw(st.lists(st.tuples(st.floats(0, 300), st.floats(0, 300)), min_size=1, max_size=6))
    y, x = (np.array(axis) for axis in zip(*[*shapes, (math.nan, 1.0), (1.0, math.nan)], strict=True))

    def roofline(y, x):
        return (1.0 + y) * (2.0 + x)

    found = lookup.read(table, y, x, rule=rule, outside="hold", roofline=roofline, details=True)
    clamped = lookup.read(table, y, x, rule=rule, outside="clamp", details=True)
    edges = [naive.edge(points, rule, *shape) for shape in shapes]
    ratio = [roofline(*shape) / roofline(*edge) for shape, edge in zip(shapes, edges, strict=True)]
    npt.assert_allclose(found.values, clamped.values * [*ratio, 1.0, 1.0], rtol=1e-14)
    held = np.array([shape != edge for shape, edge in zip(shapes, edges, strict=True)] + [False, False])
    npt.assert_array_equal(found.source == Source.EXTRAPOLATED, held)


def test_nearest_of_infinity_is_the_end_of_an_axis():
    table = compile_2d(("y", "x"), [1, 1, 2, 2], [1, 9, 1, 2], [1.0, 2.0, 3.0, 4.0])
    npt.assert_array_equal(lookup.nearest(table, [1, 1, np.inf, -np.inf], [np.inf, -np.inf, 1, 1]), [2, 1, 3, 1])
    npt.assert_array_equal(lookup.nearest(table, 2, [np.inf, -np.inf], metric="l2"), [2, 3])


def test_fast_linear_returns_the_last_point_verbatim():
    assert 1000.0 + (0.001 - 1000.0) != 0.001
    table = Table1D("x", np.array([1.0, 2.0]), np.array([1000.0, 0.001]))
    npt.assert_array_equal(lookup.linear(table, [1.0, 2.0]), [1000.0, 0.001])


def test_hold_of_a_grid_moves_to_where_both_rows_answer():
    table = compile_2d(("batch", "kv"), [1, 1, 1, 2, 2], [1, 2, 4, 1, 2], [1.0, 2.0, 4.0, 2.0, 3.0])
    found = lookup.linear(table, [1.5, 2, 4], [4, 8, 1], outside="hold", roofline=lambda b, kv: b * kv, details=True)
    npt.assert_allclose(found.values, [2.5 * 2, 3.0 * 4, 2.0 * 2])
    npt.assert_array_equal(found.source, [Source.EXTRAPOLATED] * 3)
    rows_only = lookup.linear(table, [4], [8], outside=("hold", "clamp"), roofline=lambda b, kv: b * kv)
    npt.assert_allclose(rows_only, [3.0 * 2])


def test_hold_of_gemm_sites_has_no_answer_for_nan():
    table = compile_sites([1, 8], [10, 10], [5, 5], [1.0, 2.0])
    m, k, n = np.array([[math.nan, 10, 5], [8, math.nan, 5], [8, 10, math.nan], [16, 10, 5]]).T
    found = lookup.linear(table, m, k, n, outside="hold", roofline=lambda m, k, n: m, details=True)
    npt.assert_array_equal(found.values, [math.nan, math.nan, math.nan, 4.0])
    npt.assert_array_equal(found.source, [Source.MISSING] * 3 + [Source.EXTRAPOLATED])


def test_hold_of_gemm_sites_scales_an_uncovered_weight():
    table = compile_sites([1, 8, 1, 8], [10, 10, 20, 20], [5, 5, 5, 5], [1.0, 2.0, 3.0, 4.0])

    def roofline(m, k, n):
        return m * k * n

    found = lookup.linear(table, [8, 16, 8], [20, 20, 40], 5, outside="hold", roofline=roofline, details=True)
    npt.assert_allclose(found.values, [4.0, 8.0, 8.0])
    npt.assert_array_equal(found.source, [Source.EXACT, Source.EXTRAPOLATED, Source.SUBSTITUTED])
    at_query, at_edge = roofline(np.array([8, 16, 8]), np.array([20, 20, 40]), 5), roofline(8, 20, np.full(3, 5))
    by_arrays = lookup.linear(table, [8, 16, 8], [20, 20, 40], 5, outside="hold", roofline=(at_query, at_edge))
    npt.assert_allclose(by_arrays, found.values)


@pytest.mark.parametrize(
    ("outside", "y", "x", "names"),
    [
        ("raise", [1, 3], [10, 10], "query 1: found batch = 3"),
        (("clamp", "raise"), [3, 2], [10, 99], "query 1: found batch = 2, kv = 99"),
        (("raise", "nan"), [1, 9], [99, 10], "query 1: found batch = 9"),
    ],
)
def test_raise_names_the_first_query_outside(outside, y, x, names):
    table = compile_2d(("batch", "kv"), [1, 1, 2, 2], [10, 20, 10, 20], [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(InputError, match=re.escape(names)):
        lookup.linear(table, y, x, outside=outside)


def test_raise_says_how_far_the_table_reaches():
    sites = compile_sites([1, 8, 1], [10, 10, 20], [5, 5, 6], [1.0, 2.0, 3.0])
    for table, at, extent in (
        (CURVE, (1,), "seq_len 1024 .. 8192"),
        (compile_2d(("batch", "kv"), [1, 2], [10, 20], [1.0, 2.0]), (3, 10), "batch 1 .. 2, kv 10 .. 20"),
        (sites, (9, 10, 5), "2 sites up to k = 20, n = 6, m 1 .. 8"),
    ):
        with pytest.raises(InputError, match=re.escape(extent)):
            lookup.linear(table, *at, outside="raise")


def test_raise_lets_nan_and_the_inside_pass():
    npt.assert_array_equal(lookup.floor(CURVE, [math.nan, 2000, 8192], outside="raise"), [math.nan, 0.5, 0.7])
    table = compile_2d(("batch", "kv"), [1, 2], [10, 10], [1.0, 2.0])
    npt.assert_array_equal(lookup.floor(table, [1], [99], outside=("raise", "nan")), [math.nan])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: lookup.read(CURVE, 1, rule="flor"), UnknownNameError, "floor"),
        (lambda: lookup.floor(CURVE, 1, outside="clmp"), UnknownNameError, "clamp"),
        (lambda: lookup.nearest(CURVE, 1, metric="l3"), UnknownNameError, "metric"),
        (lambda: lookup.floor(CURVE, 1, outside=("clamp", "clamp")), InputError, "outside"),
        (lambda: lookup.floor(CURVE, 1, outside="hold"), InputError, "roofline"),
        (lambda: lookup.floor(CURVE, [1, 1e6], outside="hold", roofline=lambda x: x * 0), InputError, "query 0"),
        (lambda: lookup.floor(CURVE), InputError, "seq_len"),
        (lambda: lookup.floor(CURVE, 1, 2), InputError, "coordinates"),
        (lambda: lookup.floor(CURVE, ["many"]), InputError, "seq_len"),
        (lambda: lookup.floor(CURVE, [None, "x"]), InputError, "seq_len"),
        (lambda: lookup.floor(CURVE, 1, threads=0), InputError, "threads"),
        (lambda: lookup.floor(CURVE, [1.0], out=np.zeros(2)), InputError, "out"),
        (lambda: lookup.loglog(Table1D("x", np.array([0.0, 1.0]), np.array([1.0, 2.0])), 1), InputError, "loglog"),
        (lambda: lookup.loglog(Table1D("x", np.array([1.0, 2.0]), np.array([0.0, 2.0])), 1), InputError, "loglog"),
        (
            lambda: lookup.floor(compile_2d(("b", "kv"), [1], [1], [1.0]), [1, 2, 3], [1, 2]),
            InputError,
            "broadcast",
        ),
    ],
)
def test_bad_calls_say_what_is_wrong(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_shapes_scalars_and_foreign_arrays():
    assert lookup.floor(CURVE, 2000) == 0.5 and np.ndim(lookup.floor(CURVE, 2000)) == 0
    assert lookup.floor(CURVE, []).shape == (0,)
    table = compile_2d(("b", "kv"), [1, 1, 2, 2], [1, 2, 1, 2], [1.0, 2.0, 3.0, 4.0])
    assert lookup.linear(table, np.ones((3, 1)), np.ones((1, 4))).shape == (3, 4)
    asked = np.array([1500, 5000, 9000], dtype=np.int32)[::-1]
    asked.flags.writeable = False
    npt.assert_array_equal(lookup.floor(CURVE, asked), [0.7, 0.6, 0.5])
    out = np.empty(3)
    assert lookup.floor(CURVE, asked, out=out).base is out
    npt.assert_array_equal(out, [0.7, 0.6, 0.5])


@pytest.mark.parametrize("rule", RULES)
def test_threads_change_nothing(rule):
    x = np.random.default_rng(7).uniform(0, 10_000, 3 * 65_536 if hasattr(kernels.curve_lookup, "signatures") else 64)
    npt.assert_array_equal(lookup.read(CURVE, x, rule=rule, threads=3), lookup.read(CURVE, x, rule=rule))
    one = lookup.read(CURVE, x, rule=rule, details=True)
    for a, b in zip(lookup.read(CURVE, x, rule=rule, details=True, threads=2), one, strict=True):
        npt.assert_array_equal(a, b)


def test_holes_are_gaps_not_zeros():
    table = compile_matrix(("b", "kv"), [1, 2], [10, 20, 30], [[1.0, math.nan, 3.0], [2.0, 4.0, math.nan]])
    assert len(table) == 4
    assert lookup.linear(table, 1, 20) == 2.0  # bridged within its row
    assert math.isnan(lookup.linear(table, 1.5, 30))  # nothing measured there in row 2
    assert lookup.linear(table, 1.5, 30, outside="clamp") == 3.0
    assert math.isnan(lookup.floor(table, 2, 30, outside="nan")) and lookup.floor(table, 2, 30) == 4.0


@pytest.mark.parametrize(
    "table",
    [CURVE, compile_2d(("b", "kv"), [1, 2, 2], [1, 1, 2], [1.0, 2.0, 3.0]), compile_sites([1], [2], [3], [4.0])],
)
def test_tables_pickle_and_stay_read_only(table):
    again = pickle.loads(pickle.dumps(table))
    at = {Table1D: (3000,), GemmSites: (1, 2, 3)}.get(type(table), (2, 2))
    assert lookup.floor(again, *at) == lookup.floor(table, *at)
    assert not again.values.flags.writeable and not table.values.flags.writeable


def test_table_keeps_its_own_copy():
    grid, values = np.array([1.0, 2.0]), np.array([1.0, 2.0])
    table = Table1D("x", grid, values)
    values[:] = 9.0
    assert lookup.floor(table, 1) == 1.0


def test_each_kernel_has_one_specialisation():
    """Five kinds of input, one compiled kernel each."""
    grid = compile_2d(("b", "kv"), [1, 1, 2, 2], [1, 2, 1, 2], [1.0, 2.0, 3.0, 4.0])
    weights = compile_sites([1, 2], [2, 2], [3, 3], [4.0, 5.0])
    negative = Table1D("x", np.array([-1.0, 1.0]), np.array([1.0, 2.0]))
    for kind in (np.array([2]), np.array([2.0], np.float32), [2], np.ones(4)[::2], 2):
        for rule in RULES:
            for details in (False, True):
                lookup.read(CURVE, kind, rule=rule, details=details, outside="clamp")
                lookup.read(grid, kind, kind, rule=rule, details=details, outside="hold", roofline=lambda y, x: y + x)
                lookup.read(weights, kind, kind, kind, rule=rule, details=details, outside="nan")
                if rule != "loglog":
                    lookup.read(negative, kind, rule=rule, details=details)
    for module in (search, kernels, grid_kernels, gemm_kernels):
        for name in module.__all__:
            compiled = getattr(getattr(module, name), "signatures", [])
            assert len(compiled) <= 1, f"{name}: {compiled}"


@pytest.mark.parametrize("outside", [None, "clamp", "nan"])
def test_a_rectangular_grid_read_directly_gives_the_bits_of_the_general_way(outside):
    """Values alone take the direct path; asking for details takes bisection."""
    rng = np.random.default_rng(5)
    rows, cols = np.array([1.0, 2.0, 3.0, 8.0, 200.0]), np.array([0.0, 1.0, 16.0, 17.0])
    cells = rng.random(rows.size * cols.size)
    table = Table2D(("batch", "kv_len"), rows, np.arange(0, cells.size + 1, cols.size), np.tile(cols, rows.size), cells)
    assert table.buckets is not None
    special = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, -1.0, 0.5, *rows, *cols, 199.9, 201.0, 1e300])
    y, x = (grid.ravel() for grid in np.meshgrid(special, special))
    y, x = np.append(y, rng.uniform(0, 220, 2000)), np.append(x, rng.uniform(-1, 20, 2000))
    general = lookup.linear(table, y, x, outside=outside, details=True).values
    npt.assert_array_equal(lookup.linear(table, y, x, outside=outside), general)


def test_a_ragged_grid_has_no_direct_index():
    ragged = Table2D(("batch", "kv_len"), [1.0, 2.0], [0, 2, 4], [1.0, 2.0, 1.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    assert ragged.buckets is None
