"""Coverage of intervals: sized without a group, they cover its points as promised, if it is like the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.costs.uncertainty import MODEL_HALF_WIDTH
from mfuroof.errors import InputError
from mfuroof.predict import predict_serving
from mfuroof.validate import coverage
from mfuroof.validate.intervals import sized_half_width
from mfuroof.validate.silicon import serving_columns
from mfuroof.validate.tables import Columns


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.5), st.integers(1, 5)), min_size=1, max_size=12),
       st.sampled_from([0.5, 0.8, 0.95]))  # fmt: skip
def test_the_size_is_the_smallest_that_covers(points: list[tuple[float, float, int]], level: float) -> None:
    error, lookup, weight = (np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
    width = sized_half_width(error, lookup, weight, level)

    def share(x: float) -> float:
        return sum(w for e, u, w in points if e**2 <= (x**2 + u**2) * (1 + 1e-9)) / sum(w for _, _, w in points)

    assert share(width) >= level - 1e-12
    assert width == 0.0 or share(width * (1 - 1e-6)) < level


def draws(bias: dict[str, float], n: int = 600) -> dict[str, Any]:
    """Points whose ratio to the measurement is log-normal, ten percent wide, with a factor for some groups."""
    rng = np.random.default_rng(11)
    groups = np.repeat(list("abcde"), n)
    ratio = np.exp(rng.normal(0.0, 0.1, groups.size)) * np.array([bias.get(g, 1.0) for g in groups])
    measured = rng.uniform(0.01, 0.1, groups.size)
    half_width = np.hypot(0.3, np.where(rng.random(groups.size) < 0.5, 0.0, 0.05))
    return {"predicted": measured * ratio, "measured": measured, "half_width": half_width, "groups": groups}


def test_groups_alike_are_covered_as_promised() -> None:
    found = coverage(**draws({}), model_half_width=0.3)
    assert found.in_sample == pytest.approx(0.8, abs=0.002)
    assert found.held_out == pytest.approx(0.8, abs=0.02)  # 3,000 points: 0.7 % standard error
    assert found.as_given > 0.98
    # 1.28 sigma of ln(ratio) is a factor of 1.137; half of the points have 5 % of it from their lookups
    assert 0.11 < found.half_width < 0.137
    assert set(found.folds) == set("abcde") and all(fold.count == 600 for fold in found.folds.values())
    assert "held out" in found.text() and found.to_dict()["folds"]["a"]["count"] == 600


def test_a_group_does_not_size_its_own_interval() -> None:
    alike, odd = (coverage(**draws(bias), model_half_width=0.3) for bias in ({}, {"c": 1.25}))
    assert odd.folds["c"].half_width == alike.folds["c"].half_width
    assert odd.folds["c"].covered < 0.3 < alike.folds["c"].covered
    assert odd.half_width > alike.half_width
    assert all(odd.folds[g].half_width > alike.folds[g].half_width for g in "abde")


def test_groups_weigh_alike_and_gaps_are_left_out() -> None:
    data = draws({"a": 1.3})
    many = {name: np.concatenate([values, *([values[data["groups"] == "a"]] * 9)]) for name, values in data.items()}
    assert coverage(**many, model_half_width=0.3).held_out == pytest.approx(
        coverage(**data, model_half_width=0.3).held_out, abs=1e-9
    )
    data["predicted"][:100], data["measured"][100:200] = np.nan, 0.0
    assert coverage(**data, model_half_width=0.3).folds["a"].count == 400


def test_bad_input() -> None:
    data = draws({})
    with pytest.raises(InputError, match="two groups"):
        coverage(**{**data, "groups": ["a"] * 3000}, model_half_width=0.3)
    with pytest.raises(InputError, match="equal lengths"):
        coverage(**{**data, "groups": ["a"]}, model_half_width=0.3)
    with pytest.raises(InputError, match="no usable"):
        coverage(**{**data, "predicted": np.full(3000, np.nan)}, model_half_width=0.3)


@pytest.mark.slow
def test_intervals_of_measured_serving_points(shared: Any) -> None:
    """TPOT of 974 closed-loop points: without each model or GPU in turn about 80 %, and the width that is used fits."""
    path = shared / "groundtruth" / "silicon_dev.csv"
    if not path.is_file():
        pytest.skip("no serving points")
    source = serving_columns(Columns(path))
    fixed = np.where(source.text("length_distribution") == "uniform", 0.9, 1.0)
    names = ("tp", "pp", "ep", "attention_dp", "concurrency")
    table = pa.table({
        **{name: source.text(name).tolist() for name in ("model", "gpu", "engine", "weight_dtype", "kv_dtype")},
        **{name: source.number(name, 1.0).astype(int) for name in names},
        **{name: np.rint(source.number(name) * fixed).astype(int) for name in ("input_len", "output_len")},
    })  # fmt: skip
    answer = predict_serving(table.filter(pa.array(source.text("mode") == "agg")))
    tpot, low = (answer.column(name).to_numpy() for name in ("tpot_s", "tpot_low_s"))
    measured = source.number("tpot_s")[source.text("mode") == "agg"]
    for by in ("family", "gpu"):
        groups = source.text(by)[source.text("mode") == "agg"]
        found = coverage(tpot, measured, tpot / low - 1.0, groups, model_half_width=MODEL_HALF_WIDTH)
        assert 0.72 < found.held_out < 0.88, found.text()
        assert 0.75 < found.as_given < 0.9, found.text()
        assert max(fold.half_width for fold in found.folds.values()) < MODEL_HALF_WIDTH + 0.01, found.text()
