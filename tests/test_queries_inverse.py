"""Inverse questions and crossings: the answers a look at every number gives, and one more breaks the limit."""

from __future__ import annotations

import naive_queries as naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import BOUND, TRANSFERRED, WINDOWED, evaluator, size

import mfuroof as mr
from mfuroof.batch import StepBatch
from mfuroof.costs.base import RESOURCES
from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.quant import crossover_batch
from mfuroof.queries import bound_crossover, crossover, largest, largest_concurrency
from mfuroof.queries.guarantee import why_not_monotone
from mfuroof.queries.meanings import beyond
from mfuroof.queries.search import bisect_last, descend, scan_all

AXES = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context")
MOST = size(700, 40)
M = "meta-llama/Meta-Llama-3.1-8B"


# ------------------------------------------------------------------ searching


@given(st.lists(st.integers(-2, 12), min_size=1, max_size=6), st.integers(0, 3), st.integers(0, 8))
def test_bisection_finds_the_last_number(ends, low, width):
    most = low + width
    cases = np.array(ends)
    found = bisect_last(lambda rows, values: values <= cases[rows], cases.size, low, most)
    expected = [naive.last(lambda n, end=end: n <= end, low, most) for end in ends]
    assert found.tolist() == [low - 1 if e is None else e for e in expected]


@given(st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=4), st.integers(0, 3), st.data())
def test_scans_and_descents_look_at_every_number(truth, low, data):
    table = np.array(truth)
    most = low + 6

    def test(rows, values):
        return table[rows, values - low]

    scan = scan_all(test, len(truth), low, most)
    for i, row in enumerate(truth):
        last = naive.last(lambda n, row=row: row[n - low], low, most)
        first = naive.first(lambda n, row=row: row[n - low], low, most)
        assert (scan.last[i], scan.first[i]) == (
            low - 1 if last is None else last,
            most + 1 if first is None else first,
        )
        assert scan.met[i] == sum(row)
    tops = np.array([data.draw(st.integers(low - 1, most)) for _ in truth])
    for i, found in enumerate(descend(test, tops, low)):
        last = naive.last(lambda n, i=i: truth[i][n - low], low, tops[i])
        assert found == (low - 1 if last is None else last)


def test_long_descents_and_scans_are_cut_into_blocks():
    last = np.array([3, 70_000, 0, 499_999])
    assert descend(lambda rows, values: values <= last[rows], np.full(4, 500_000), 1).tolist() == last.tolist()
    scan = scan_all(lambda rows, values: values >= last[rows], 4, 1, 300_000)
    assert scan.first.tolist() == [3, 70_000, 1, 300_001]
    assert scan.met.tolist() == [299_998, 230_001, 300_000, 0]


# ------------------------------------------------------------------ largest


def cases_along(axis, seed):
    """Shapes of a few steps without the axis, and limits: times of steps along it, exactly or nearly."""
    rng = np.random.default_rng(seed)
    shape = {
        "decode_batch": rng.integers(0, 200, 5),
        "decode_context": rng.integers(0, 30_000, 5),
        "prefill_batch": rng.integers(1, 4, 5),
        "prefill_new_tokens": rng.integers(1, 3000, 5),
        "prefill_context": rng.integers(0, 5000, 5),
    }
    if axis.startswith("decode"):
        shape |= {"prefill_batch": rng.integers(0, 2, 5)}
    del shape[axis]
    return shape, rng


def times_along(ev, axis, shape, most):
    """Times of every value from 0 to ``most``, one row a case."""
    rows = []
    for i in range(len(next(iter(shape.values())))):
        columns = {name: int(column[i]) for name, column in shape.items()} | {axis: np.arange(most + 1)}
        rows.append(ev.step_time(StepBatch.uniform(**columns)))
    return np.array(rows)


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("name", [*BOUND, *TRANSFERRED, *WINDOWED])
def test_largest_is_what_a_full_scan_finds(name, axis):
    ev = evaluator(name)
    shape, rng = cases_along(axis, len(name) + len(axis))
    times = times_along(ev, axis, shape, MOST + 1)
    at = rng.integers(0, MOST, len(times))
    exact = times[np.arange(len(times)), at]  # a limit that a step meets to the last bit
    for limit in (
        exact,
        np.nextafter(exact, 0),
        exact * 1.0001,
        np.full(len(times), times.max() * 2),
        exact * 0 + 1e-6,
    ):
        expected = [naive.last(lambda n, t=t, x=x: t[n] <= x, 1, MOST) for t, x in zip(times, limit, strict=True)]
        found = largest(ev, axis, limit, most=MOST, **shape).table
        assert found.column(axis).to_pylist() == expected
        for i, value in enumerate(expected):
            row = found.slice(i, 1).to_pylist()[0]
            if value is not None:
                assert row["step_time_s"] == times[i, value] <= limit[i]
                assert value == MOST or row["next_step_time_s"] == times[i, value + 1] > limit[i]
            assert row["limited_by"] == ("range" if value == MOST else "time")
            assert row["gapless"] == all(t <= limit[i] for t in times[i, 1 : (value or 0) + 1])


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BOUND, *TRANSFERRED, *WINDOWED])
def test_bisection_and_scan_agree_over_long_ranges(name):
    ev, rng = evaluator(name), np.random.default_rng(len(name))
    for axis in AXES:
        if why_not_monotone(ev, axis):
            continue
        most = {"decode_batch": 4096, "prefill_batch": 512}.get(axis, 20_000)
        shape = {
            "decode_batch": rng.integers(0, 300, 24),
            "decode_context": rng.integers(0, 60_000, 24),
            "prefill_batch": rng.integers(1, 6, 24),
            "prefill_new_tokens": rng.integers(1, 5000, 24),
            "prefill_context": rng.integers(0, 20_000, 24),
        }
        del shape[axis]
        times = ev.step_time(StepBatch.uniform(**shape, **{axis: rng.integers(1, most, 24)}))
        limit = times * rng.choice([1.0, 1 - 1e-15, 1 + 1e-15, 1 + 1e-12, 0.999], 24)  # ties, and beside them
        ways = [largest(ev, axis, limit, most=most, method=way, **shape).table for way in ("bisect", "scan")]
        assert ways[0].equals(ways[1]), axis


def test_bisection_looks_at_few_steps(monkeypatch):
    ev = evaluator()
    asked = []
    priced = ev.step_time
    monkeypatch.setattr(ev, "step_time", lambda batch: asked.append(len(batch)) or priced(batch))
    found = largest(ev, "decode_context", 0.02, decode_batch=np.arange(1, 101))
    assert sum(asked) <= 100 * 30  # of a range of 2**20
    assert found.table.column("decode_context").null_count == 0


def test_times_that_fall_are_scanned_and_gaps_told():
    raw = evaluator("8B on H100", "raw")
    assert "as measured" in why_not_monotone(raw, "decode_batch")
    shape = {"prefill_batch": np.ones(1, int)}
    times = times_along(raw, "prefill_new_tokens", shape, 3000)[0]
    falls = np.flatnonzero(np.diff(times[1:]) < 0)[0] + 1
    limit = times[falls + 1]  # met after the fall, not before
    found = largest(raw, "prefill_new_tokens", limit, most=3000)
    assert found.table.column("prefill_new_tokens").to_pylist() == [np.flatnonzero(times <= limit)[-1]]
    assert found.table.column("gapless").to_pylist() == [False]
    assert "every value was priced: its curves are as measured" in found.sentence
    with pytest.raises(InputError, match="method='scan'"):
        largest(raw, "prefill_new_tokens", limit, method="bisect")
    with pytest.raises(InputError, match="Lower most"):
        largest(raw, "decode_context", 0.1, decode_batch=np.arange(1, 1000))


def qwen(**more):
    return mr.StepEvaluator("Qwen/Qwen3-8B", "l40s", **more)


@pytest.mark.parametrize(
    ("ev", "axis", "guaranteed"),
    [
        (lambda: evaluator(), "decode_batch", True),
        (lambda: evaluator("R1 on 4 H100"), "prefill_context", True),
        (lambda: evaluator(*WINDOWED), "decode_context", True),
        (lambda: evaluator(*WINDOWED), "prefill_context", False),
        (lambda: evaluator("8B on H100", "aic"), "decode_batch", False),
        (lambda: mr.StepEvaluator("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "h100_sxm", 2), "decode_batch", False),
        (lambda: qwen(params=mr.CostParams(engine_overheads=False)), "decode_batch", True),
        (lambda: qwen(params=mr.CostParams(prefill_blend="sqrt")), "decode_batch", False),
        (lambda: qwen(cost="constant_mfu"), "prefill_new_tokens", True),
    ],
)  # fmt: skip
def test_guarantees_are_given_where_laws_hold(ev, axis, guaranteed):
    assert (why_not_monotone(ev(), axis) == "") == guaranteed


def test_memory_limits_as_well():
    ev = evaluator("8B on L40S")
    contexts = [1000, 8000, 60_000, 10**6]
    found = largest(ev, "decode_batch", 1.0, decode_context=contexts, memory_utilization=0.9).table
    assert found.column("limited_by").to_pylist() == ["memory"] * 4
    room = mr.kv_capacity(ev.model, ev.hardware, seq_len=[c + 1 for c in contexts]).max_sequences
    # blocks are counted for the whole cache there, for each sequence here: less than one block a sequence apart
    for batch, most in zip(found.column("decode_batch").to_pylist(), room.tolist(), strict=True):
        assert (batch or 0) == pytest.approx(most, rel=16 / 1000, abs=1)
    assert found.column("decode_batch").to_pylist()[3] is None
    alone = largest(ev, "decode_batch", 1e-9, decode_context=1000, memory_utilization=0.9)
    assert "the smallest takes longer" in alone.sentence


def test_shapes_broadcast_and_sentences_name_the_ends():
    ev = evaluator()
    found = largest(ev, "decode_batch", [[0.01], [0.02]], decode_context=[1000, 4000, 16_000])
    assert found.table.column("limit_s").to_pylist() == [0.01] * 3 + [0.02] * 3
    assert found.table.column("decode_context").to_pylist() == [1000, 4000, 16_000] * 2
    batches = np.array(found.table.column("decode_batch").to_pylist()).reshape(2, 3)
    assert (np.diff(batches, axis=0) > 0).all() and (np.diff(batches, axis=1) < 0).all()
    ends = f"goes from {batches[0, 0]} requests at decode_context 1,000 tokens to {batches[1, 2]} requests"
    assert ends in found.sentence
    one = largest(ev, "prefill_new_tokens", 0.05, decode_batch=8, decode_context=1000).sentence
    assert one.startswith(
        "For meta-llama/Meta-Llama-3.1-8B on h100_sxm the largest prefill_new_tokens of a step within 50 ms"
    )
    assert "at decode_batch 8, decode_context 1,000, prefill_batch 1 is" in one


@pytest.mark.parametrize(
    "arguments",
    [
        {"axis": "batch"},
        {"limit_s": -1.0},
        {"limit_s": np.nan},
        {"limit_s": "soon"},
        {"decode_context": 1.5},
        {"decode_batch": 3},
        {"limit_s": [1, 2], "decode_context": [1, 2, 3]},
        {"low": 5, "most": 4},
        {"most": 2**41},
        {"memory_utilization": 2},
        {"method": "guess"},
        {"axis": "prefill_context"},
        {"axis": "prefill_context", "prefill_batch": 1, "prefill_new_tokens": [0, 1]},
    ],
)
def test_bad_questions_about_the_largest(arguments):
    with pytest.raises((InputError, UnknownNameError)):
        largest(evaluator(), **{"axis": "decode_batch", "limit_s": 0.1, **arguments})


# ------------------------------------------------------------------ crossings


def test_crossings_are_the_first_of_every_batch():
    base, narrow = (
        evaluator("8B on H100"),
        mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm", weight_dtype="int4_wo"),
    )
    contexts, factors = [0, 1000, 30_000], [2.0, 1.5, 0.5]
    found = crossover(base, narrow, np.array(factors)[:, None], decode_context=contexts, most=MOST).table.to_pylist()
    i = 0
    for factor in factors:
        for context in contexts:
            batch = StepBatch.uniform(np.arange(1, MOST + 1), context)
            gain = base.step_time(batch) / narrow.step_time(batch)
            below = gain < factor
            expected = int(np.argmax(below)) + 1 if below.any() else None
            assert (found[i]["decode_batch"], found[i]["threshold"]) == (expected, factor)
            assert found[i]["lasting"] == (None if expected is None else bool(below[expected - 1 :].all()))
            assert (found[i]["gain_at_low"], found[i]["gain_at_most"]) == (gain[0], gain[-1])
            i += 1
    plain = crossover_batch("meta-llama/Llama-3.1-8B", "h100_sxm", "int4_wo", 1.5, 1000, limit=MOST, dequantisation=0.0)
    assert found[4]["decode_batch"] == plain.batch_size
    back = crossover(narrow, base, 0.5, when="above", decode_context=[0, 1000], most=MOST)
    assert "not throughout" not in back.sentence  # half the speed at first, more from some batch on and for good
    one = crossover(base, narrow, 1.5, decode_context=1000)
    assert (
        f"less than 1.5 times as fast as meta-llama/Meta-Llama-3.1-8B on h100_sxm from {plain.batch_size} requests on"
        in one.sentence
    )


def test_gpus_and_prices_weigh_the_time():
    two, four = (mr.StepEvaluator("Qwen/Qwen3-32B", "h100_sxm", tp) for tp in (2, 4))
    step = crossover(two, four, when="above", most=64, decode_context=1000).table
    gpu = crossover(two, four, when="above", per="gpu", most=64, decode_context=1000).table
    assert step.column("decode_batch").to_pylist() == [1]
    assert gpu.column("gain_at_low")[0].as_py() == pytest.approx(step.column("gain_at_low")[0].as_py() / 2)
    other = mr.StepEvaluator("Qwen/Qwen3-32B", "h200_sxm", 2)
    dear = {"h100_sxm": 1.0, "h200_sxm": 1e3}
    never = crossover(two, other, when="above", per="price", prices=dear, decode_context=1000)
    assert never.table.column("decode_batch").to_pylist() == [None]
    assert (
        "more throughput per price than Qwen/Qwen3-32B on h100_sxm tp2 nowhere up to 2,048 requests" in never.sentence
    )
    half, odd = ({"per": "price", "prices": {name: 1}} for name in ("h100_sxm", "h100_smx"))
    kinds = ({"per": "hour"}, {"when": "at"}, {"threshold": 0}, {"batch": 3}, {"axis": "tp"})
    for wrong in ({"per": "price"}, half, odd, *kinds):
        with pytest.raises((InputError, UnknownNameError)):
            crossover(two, other, **wrong)


def test_a_gain_that_is_the_factor_is_neither_below_nor_above():
    for when in ("below", "above"):
        same = crossover(evaluator(), evaluator(), 1.0, when=when, most=20)
        assert same.table.column("decode_batch").to_pylist() == [None]
        assert same.table.column("gain_at_most").to_pylist() == [1.0]


def test_anything_with_step_times_can_be_compared():
    class Half:
        def step_time(self, batch):
            return 2.0 * evaluator().step_time(batch)

        def __str__(self):
            return "half the speed"

    found = crossover(evaluator(), Half(), most=10)
    assert found.table.column("gain_at_most").to_pylist() == [0.5]
    assert found.sentence.startswith(
        "half the speed is slower than meta-llama/Meta-Llama-3.1-8B on h100_sxm from 1 requests on"
    )
    with pytest.raises(InputError, match="no StepEvaluator"):
        crossover(evaluator(), Half(), per="gpu")


def test_what_binds_is_that_of_every_batch():
    ev = evaluator("70B fp8 on 4 H100")
    contexts = [0, 500, 50_000]
    for resource in ("compute", "memory"):
        found = bound_crossover(ev, resource, decode_context=contexts, most=MOST).table.to_pylist()
        for row, context in zip(found, contexts, strict=True):
            result = ev.evaluate(StepBatch.uniform(np.arange(1, MOST + 1), context))
            binds = result.bound == RESOURCES.index(resource)
            assert row["decode_batch"] == (int(np.argmax(binds)) + 1 if binds.any() else None)
            assert (row["bound_at_low"], row["bound_at_most"]) == (result.bound_names[0], result.bound_names[-1])
            if binds.any():
                assert row["lasting"] == bool(binds[np.argmax(binds) :].all())
    with pytest.raises(UnknownNameError):
        bound_crossover(ev, "disk")


# ------------------------------------------------------------------ concurrency


def test_concurrency_is_the_largest_of_every_one():
    ev = evaluator()
    lengths, limits, most = np.array([64, 1000, 6000]), np.array([0.008, 0.012, 0.02]), size(300, 20)
    found = largest_concurrency(ev, lengths, 200, tpot_limit_s=limits, ttft_limit_s=0.5, most=most)
    clients = np.arange(1, most + 2)
    for row, length, limit in zip(found.table.to_pylist(), lengths, limits, strict=True):
        result = mr.serving.estimate(ev, length, 200, clients)
        good = (result.tpot_s <= limit) & (result.ttft_s <= 0.5)
        last = naive.last(lambda n, good=good: good[n - 1], 1, most)
        assert row["concurrency"] == last
        assert row["tpot_s"] == result.tpot_s[last - 1] <= limit
        assert row["gapless"] == good[:last].all()
        if last < most:
            after = {"tpot": result.tpot_s[last] > limit, "ttft": result.ttft_s[last] > 0.5}
            assert after[row["limited_by"]]
    npt.assert_array_equal(found.table.column("input_len"), lengths)


def test_concurrency_that_cannot_be():
    ev = evaluator()
    assert (
        "not even one client within a TPOT of 1 us"
        in largest_concurrency(ev, 100, 10, tpot_limit_s=1e-6, most=4).sentence
    )
    ranged = largest_concurrency(ev, 100, 10, ttft_limit_s=10.0, most=4)
    assert (
        "serves 4 clients of 100 prompt and 10 output tokens within a TTFT of 10 s (the largest looked at)"
        in ranged.sentence
    )
    big = mr.StepEvaluator("meta-llama/Llama-3.1-70B", "l40s")
    with pytest.warns(MfuroofWarning, match="does not fit") as caught:
        none = largest_concurrency(big, 100, 10, tpot_limit_s=1.0, most=4)
    assert len(caught) == 1
    assert none.table.column("limited_by").to_pylist() == ["memory"]
    assert "a request does not fit the memory" in none.sentence
    shapes = {"tpot_limit_s": [1, 2], "ttft_limit_s": [1, 2, 3]}
    many, own = {"tpot_limit_s": 1, "most": 2**25}, {"tpot_limit_s": 1, "concurrency": 3}
    for wrong in ({}, {"tpot_limit_s": 0}, shapes, many, own):
        with pytest.raises(InputError):
            largest_concurrency(ev, 100, 10, **wrong)


def test_what_is_no_evaluator_is_said():
    evaluator = mr.StepEvaluator("meta-llama/Llama-3.1-8B", "h100_sxm")
    for wrong in (
        lambda: crossover(evaluator, None, 1.5),
        lambda: crossover(3, evaluator),
        lambda: bound_crossover(None),
        lambda: largest(None, "decode_batch", 0.1),
        lambda: largest_concurrency(None, 10, 10, tpot_limit_s=0.1),
    ):
        with pytest.raises(InputError, match="expected a StepEvaluator"):
            wrong()


def test_the_next_value_is_told_with_digits_that_exceed_the_limit():
    assert beyond(0.100004, 0.1, "s") == "100.004 ms"
    assert beyond(0.12, 0.1, "s") == "120 ms"
    assert beyond(float("nan"), 0.1, "s") == "nan s"
    assert beyond(1234.4, 1234.0, "") == "1234.4"
