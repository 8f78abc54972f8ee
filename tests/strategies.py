"""Hypothesis strategies for tables and for queries that sit where lookups go wrong: on, beside and beyond the grid."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from mfuroof.tables.compile import compile_2d, compile_sites
from mfuroof.tables.compiled import Table1D

coordinates = st.integers(0, 200).map(float)
positive_coordinates = st.integers(1, 200).map(float)
wide_coordinates = st.floats(-1e140, 1e140, allow_subnormal=True)
measurements = st.floats(1e-3, 1e3)


def curves(points=coordinates, min_size=1, max_size=12):
    return st.dictionaries(points, measurements, min_size=min_size, max_size=max_size)


def tables_1d(points=coordinates, **sizes):
    return curves(points, **sizes).map(lambda c: Table1D("x", np.array(list(c)), np.array(list(c.values()))))


def cells(points=coordinates, max_size=20):
    """Ragged grids: any set of points, so rows of different length and holes are the rule."""
    small = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, 13.0])
    return st.dictionaries(st.tuples(small, st.one_of(small, points)), measurements, min_size=1, max_size=max_size)


def table_of_cells(cells):
    y, x = np.array([*zip(*cells, strict=True)])
    return compile_2d(("y", "x"), y, x, np.array(list(cells.values())))


def sites():
    size = st.sampled_from([2.0, 3.0, 5.0, 7.0])
    return st.dictionaries(st.tuples(size, size), curves(positive_coordinates, max_size=4), min_size=1, max_size=6)


def table_of_sites(sites):
    rows = [(m, k, n, v) for (k, n), curve in sites.items() for m, v in curve.items()]
    return compile_sites(*np.array([*zip(*rows, strict=True)]))


@st.composite
def queries(draw, grid, max_size=12):
    """Any float, grid points, their neighbours in floating point, and midpoints (ties)."""
    grid = sorted(grid)
    on = st.sampled_from(grid)
    middles = [(a + b) / 2 for a, b in pairwise(grid)]
    choices = [
        st.floats(),
        on,
        on.map(lambda g: math.nextafter(g, math.inf)),
        on.map(lambda g: math.nextafter(g, -math.inf)),
        st.sampled_from(middles or grid),
        st.floats(grid[0], grid[-1]),
        st.sampled_from([-0.0, 0.0, math.inf, -math.inf, math.nan, 5e-324, -5e-324]),
    ]
    return draw(st.lists(st.one_of(choices), min_size=1, max_size=max_size))
