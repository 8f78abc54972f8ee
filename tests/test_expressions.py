"""Expressions over columns: the values and the truth a row-by-row reading gives, and nothing is ever executed."""

from __future__ import annotations

import math

import naive_queries as naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, UnknownNameError
from mfuroof.expressions import SCALED, Expression, Texts, scaled_name

NAMES = ("h100_sxm", "l40s", "b200_sxm")
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.integers(-3, 3).map(float),
            "b": st.integers(-3, 3),
            "gpu": st.none() | st.sampled_from(NAMES),
            "fits": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=8,
)
NUMBERS = st.recursive(
    st.sampled_from([("column", "a"), ("column", "b")]) | st.integers(-3, 3).map(lambda n: ("value", n)),
    lambda inner: st.tuples(st.sampled_from(["+", "-", "*"]), inner, inner),
    max_leaves=4,
)
NAMED = [("value", name) for name in NAMES]
COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS, NUMBERS),
    st.tuples(st.sampled_from(["==", "!="]), st.just(("column", "gpu")), st.sampled_from(NAMED)),
    st.just(("column", "fits")),
)  # fmt: skip
CONDITIONS = st.recursive(
    COMPARISONS,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), inner, inner) | st.tuples(st.just("not"), inner),
    max_leaves=6,
)


def columns(rows):
    fits = [row["fits"] for row in rows]
    return {
        "a": np.array([math.nan if row["a"] is None else row["a"] for row in rows]),
        "b": np.array([row["b"] for row in rows]),
        "gpu": Texts(np.array([-1 if r["gpu"] is None else NAMES.index(r["gpu"]) for r in rows]), NAMES),
        "fits": (np.array([f is True for f in fits]), np.array([f is not None for f in fits])),
    }


@given(ROWS, CONDITIONS)
def test_conditions_are_those_of_each_row(rows, tree):
    found = Expression.parse(naive.text(tree), rows[0]).test(columns(rows))
    npt.assert_array_equal(np.broadcast_to(found, len(rows)), [naive.evaluate(tree, row) is True for row in rows])


@given(ROWS, NUMBERS)
def test_numbers_are_those_of_each_row(rows, tree):
    found = Expression.parse(naive.text(tree), rows[0]).evaluate(columns(rows))
    expected = [naive.evaluate(tree, row) for row in rows]
    npt.assert_array_equal(
        np.broadcast_to(found, len(rows)), [math.nan if x is None else float(x) for x in expected], strict=True
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 < b <= 2", [True, False, False]),
        ("gpu in ('l40s', 'x')", [False, True, False]),
        ("gpu not in ['l40s']", [True, False, False]),  # missing is in no list, and not in none either
        ("gpu == other", [True, False, False]),
        ("min(b, 2, a) == 1", [True, False, False]),
        ("abs(b) // 2 == 1 and b % 2 == 1", [False, True, False]),
        ("2 ** b == 2", [True, False, False]),
        ("a / 0 > 5", [True, True, False]),
        ("True", [True, True, True]),
        ("fits != True", [False, True, False]),
        ("t_ms <= 20", [True, True, False]),
        ("t_us == 20_000", [False, True, False]),
        ("m_gib == 1", [True, False, False]),
        ("+b - -b == 2 * b", [True, True, True]),
        ("'x' == 'x'", [True, True, True]),
    ],
)
def test_the_language(text, expected):
    given_columns = {
        "a": np.array([1.0, 2.0, math.nan]),
        "b": np.array([1, -3, 5]),
        "gpu": Texts(np.array([0, 1, -1]), NAMES),
        "other": Texts(np.array([1, 1, 0]), ("b200_sxm", "h100_sxm")),
        "fits": (np.array([True, False, False]), np.array([True, True, False])),
        "t_s": np.array([0.01, 0.02, 0.03]),
        "m_bytes": np.array([2**30, 2**20, 0]),
    }
    found = Expression.parse(text, given_columns).test(given_columns)
    npt.assert_array_equal(np.broadcast_to(found, 3), expected)


def test_counts_do_not_wrap_around():
    huge = {"n": np.array([2**40])}
    assert Expression.parse("n * n * n > 0", huge).test(huge).all()


@pytest.mark.parametrize(
    "text",
    ["", " ", "a <", "a.real > 1", "__import__('os').system('true')", "[1]", "a in 3", "lambda: 1", "(x := 1)",
     "a is 1", "a > 1j", "\0", "max() > 1", "abs(1, 2) > 1", "sum(a) > 1", "a if a else a", "max(a, key=a) > 1",
     "f'{a}' == 'x'",
     "(" * 300 + "a" + ")" * 300, "-" * 5000 + "a", "a > 1" + "0" * 400, "a == ('x', 'y')", "a @ a > 1", "a << 1 > 0",
     "a < b'x'", "*a", "a[0] > 1", "{a}", "yield a", "'\\d' == 'a", None, 3],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text):
    with pytest.raises(InputError):
        Expression.parse(text, ("a", "gpu"))


@pytest.mark.parametrize("text", ["a", "a + 1", "gpu", "(a > 1) + 1 > 0", "gpu < 'x'", "gpu == 1", "a == 'x'", "not a"])
def test_mixed_up_kinds_are_named(text):
    given_columns = {"a": np.ones(1), "gpu": Texts(np.zeros(1, int), ("x",))}
    with pytest.raises(InputError, match="expression"):
        Expression.parse(text, given_columns).test(given_columns)


def test_unknown_names_name_the_nearest():
    with pytest.raises(UnknownNameError, match="tpot_s"):
        Expression.parse("tpott_s < 1", ("tpot_s", "gpu"))


def test_scaled_names_read_plain_quantities_alone():
    assert {scaled_name("x" + suffix, ("x" + base,)) for suffix, base, _ in SCALED} == {
        ("x" + base, unit) for _, base, unit in SCALED
    }
    assert scaled_name("tokens_per_ms", ("tokens_per_s",)) is None  # a rate per ms is a thousandth, not a thousand
    exact = {"t_ms": np.array([5.0]), "t_s": np.array([1.0])}
    assert Expression.parse("t_ms == 5", exact).test(exact).all()  # a column of that name goes first
