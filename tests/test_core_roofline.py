"""The kernels of the roofline costs against plain-Python definitions, with coefficients of like size for every term.

A bound model has terms that are far smaller than others, or zero; here each of them shows in the result.
"""

from __future__ import annotations

import naive_roofline as naive
import numpy as np
import numpy.testing as npt
import pytest
from step_strategies import INTERPRETED

from mfuroof._types import freeze
from mfuroof.core import attention_mfu, constant_mfu, constant_mfu_batches, mfu_table, mfu_table_batches

NO_CAP = constant_mfu.NO_CAP
RULES = {
    "joint": constant_mfu.JOINT, "sum": constant_mfu.PHASE_SUM, "max": constant_mfu.PHASE_MAX,
    "token_weighted": constant_mfu.TOKEN_WEIGHTED,
}  # fmt: skip
CLOSE = {"rtol": 1e-12}  # sums of some dozens of terms of like size, in another order


def coefficients(rng, names, **fixed):
    return {name: rng.uniform(0.3, 3.0) for name in names} | fixed


def prompts(rng, kinds, largest=5):
    count = rng.integers(0, 4)
    return [
        {
            "context": int(rng.integers(0, 12)),
            "new": int(rng.integers(0, largest)),
            "emits": int(rng.integers(0, 2)),
            "mfu": rng.uniform(0.1, 2.0, kinds).tolist(),
        }
        for _ in range(count)
    ]


def decodes(rng, kinds, most=5):
    count = rng.integers(0, most)
    return [{"context": int(rng.integers(0, 12)), "mfu": rng.uniform(0.1, 2.0, kinds).tolist()} for _ in range(count)]


def integers(values):
    return freeze(values, np.int64)


def ragged(steps, rng):
    """Columns of the steps, a group that belongs to none before them, and how often each group stands for a request."""
    decode_counts, prefill_counts = rng.integers(0, 4, 100), rng.integers(0, 4, 100)
    prefills = [{"context": 9, "new": 9, "emits": 1}, *(r for p, _ in steps for r in p)]
    decoding = [{"context": 9}, *(r for _, d in steps for r in d)]
    columns = [
        1 + np.cumsum([0, *(len(d) for _, d in steps)]),
        [r["context"] for r in decoding],
        decode_counts[: len(decoding)],
        1 + np.cumsum([0, *(len(p) for p, _ in steps)]),
        *([r[name] for r in prefills] for name in ("context", "new")),
        prefill_counts[: len(prefills)],
        [r["emits"] for r in prefills],
    ]
    repeated, at_p, at_d = [], 1, 1
    for p, d in steps:
        repeated.append((
            [r for k, r in enumerate(p) for _ in range(prefill_counts[at_p + k])],
            [r for k, r in enumerate(d) for _ in range(decode_counts[at_d + k])],
        ))  # fmt: skip
        at_p, at_d = at_p + len(p), at_d + len(d)
    return [integers(c) for c in columns], repeated


def uniform(rng, kinds, n=6):
    """Columns of ``n`` uniform steps, some of one value for all, and the same steps as lists of requests."""
    top = {"decode_batch": 13, "decode_context": 12, "prefill_batch": 4, "prefill_new": 5, "prefill_context": 12}
    columns = {name: rng.integers(0, high, rng.choice([1, n])) for name, high in (top | {"emits": 2}).items()}
    mfu_d, mfu_p = rng.uniform(0.1, 2.0, (2, kinds, n))
    steps = []
    for i in range(n):
        x = {name: int(values[i % values.size]) for name, values in columns.items()}
        prompt = {
            "context": x["prefill_context"], "new": x["prefill_new"], "emits": x["emits"], "mfu": mfu_p[:, i].tolist()
        }  # fmt: skip
        request = {"context": x["decode_context"], "mfu": mfu_d[:, i].tolist()}
        steps.append(([prompt] * x["prefill_batch"], [request] * x["decode_batch"]))
    return [integers(c) for c in columns.values()], mfu_d, mfu_p, steps


def agree(expected, out, breakdown):
    npt.assert_allclose(out, [time for time, _ in expected], **CLOSE)
    npt.assert_allclose(breakdown, np.array([parts for _, parts in expected]).T, **CLOSE, atol=1e-13)


# ------------------------------------------------------------------------------------------------ one MFU a phase


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_constant_mfu__every_term_counts(rule, seed):
    rng = np.random.default_rng([seed, *rule.encode()])
    c = coefficients(rng, constant_mfu.CONSTANTS[1:], mixed_penalty=rng.choice([0.0, 0.4]))
    c |= {"overlap_penalty": 0.3, "kv_gain": rng.choice([0.0, 0.7]), "kv_per_batch": 0.4}
    c |= {"empty_overhead": float(seed % 2), "rule": rule}
    kinds = [coefficients(rng, constant_mfu.REACHES, cap=cap) for cap in (NO_CAP, 3.0, 7.0)]
    weights = np.cumsum(rng.uniform(1.0, 3.0, 9))
    bound = (
        freeze([RULES[rule], *(c[name] for name in constant_mfu.CONSTANTS[1:])]),
        freeze([[kind[name] for name in constant_mfu.REACHES] for kind in kinds]),
        freeze(weights),
    )

    def expected(steps):
        return [naive.constant_step(c, kinds, weights.tolist(), p, d) for p, d in steps]

    columns, _, _, steps = uniform(rng, 0)
    out, breakdown = np.empty(6), np.empty((6, 6))
    constant_mfu_batches.uniform_times(*bound, *columns, out, breakdown)
    agree(expected(steps), out, breakdown)
    scalars = [constant_mfu_batches.step_time(*bound, *(float(x[i % x.size]) for x in columns)) for i in range(6)]
    npt.assert_allclose(scalars, out, **CLOSE)
    steps = [(prompts(rng, 0), decodes(rng, 0)) for _ in range(6)]
    columns, steps = ragged(steps, rng)
    constant_mfu_batches.ragged_times(*bound, *columns, out, breakdown)
    agree(expected(steps), out, breakdown)


def test_constant_mfu__nothing_charged_beside_compute_and_memory():
    rng = np.random.default_rng(3)
    charged = ("comm", "overhead")
    c = {
        name: 0.0 if any(part in name for part in charged) else rng.uniform(0.3, 3.0)
        for name in constant_mfu.CONSTANTS[1:]
    }
    kinds, weights = [coefficients(rng, constant_mfu.REACHES, cap=NO_CAP)], [0.0, 1.0, 2.0]
    columns, _, _, steps = uniform(rng, 0)
    out, breakdown = np.empty(6), np.empty((6, 6))
    bound = freeze([0.0, *c.values()]), freeze([[*kinds[0].values()]]), freeze(weights)
    constant_mfu_batches.uniform_times(*bound, *columns, out, breakdown)
    agree([naive.constant_step(c | {"rule": "joint"}, kinds, weights, p, d) for p, d in steps], out, breakdown)


@pytest.mark.skipif(INTERPRETED, reason="millions of groups, in the interpreter")
def test_constant_mfu__sums_of_very_many_groups_do_not_overflow():
    groups, context = 2**23, 2**40  # 2**63 cached tokens: one more than an int64 holds
    kind = coefficients(np.random.default_rng(0), constant_mfu.REACHES, cap=NO_CAP)
    c = dict.fromkeys(constant_mfu.CONSTANTS, 0.0) | {"overlap_penalty": 1.0, "kv_base": 1.0}
    bound = freeze([*c.values()]), freeze([[*kind.values()]]), freeze([0.0, 0.0])
    none, one = integers([]), integers([1])
    columns = integers([0, groups]), integers(np.full(groups, context)), one, integers([0, 0]), none, none, one, one
    out = np.empty(1)
    constant_mfu_batches.ragged_times(*bound, *columns, out, np.empty((0, 0)))
    npt.assert_allclose(out, 2.0**63 * (kind["decode_read_compute_s"] + kind["decode_read_s"]), **CLOSE)


# ------------------------------------------------------------------------------------------------ MFU tables

TABLE_RULES = {"joint": mfu_table.JOINT, "max": mfu_table.PHASE_MAX, "token_weighted": mfu_table.TOKEN_WEIGHTED}
AGGREGATIONS = {
    "per_request": mfu_table.PER_REQUEST, "flops_weighted": mfu_table.FLOPS_WEIGHTED, "max_kv": mfu_table.MAX_KV
}  # fmt: skip


@pytest.mark.parametrize("rule", TABLE_RULES)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_mfu_table__every_term_counts(rule, aggregation, seed):
    rng = np.random.default_rng([seed, *aggregation.encode(), *rule.encode()])
    c = coefficients(rng, mfu_table.CONSTANTS, rule=rule, aggregation=aggregation, overlap_penalty=0.3)
    c |= {"own": float(seed % 2), "square": float(seed == 3), "mixed_penalty": rng.choice([0.0, 0.4])}
    c |= {"empty_overhead": float(seed % 2), "bucket_min": 4.0 * (seed > 1), "bucket_max": 8.0}
    kinds = [coefficients(rng, mfu_table.ATTENTION, cap=cap) for cap in (float("inf"), 3.0, 6.0)]
    tokens_s, heads_s = np.cumsum(rng.uniform(0.5, 2.0, (2, 8)), axis=1), np.cumsum(rng.uniform(0.5, 2.0, 4))
    numbers = c | {"rule": TABLE_RULES[rule], "aggregation": AGGREGATIONS[aggregation]}
    bound = (
        freeze([numbers[name] for name in mfu_table.CONSTANTS]),
        freeze([[min(kind[name], NO_CAP) for name in mfu_table.ATTENTION] for kind in kinds]),
        freeze(tokens_s),
        freeze(heads_s),
    )

    def expected(steps):
        return [naive.table_step(c, kinds, tokens_s.tolist(), heads_s.tolist(), p, d) for p, d in steps]

    out, breakdown = np.empty(6), np.empty((10, 6))
    if not c["bucket_min"]:  # with buckets a uniform step has one
        columns, mfu_d, mfu_p, steps = uniform(rng, 3)
        mfu_table_batches.uniform_times(*bound, *columns, mfu_d.copy(), mfu_p.copy(), out, breakdown)
        agree(expected(steps), out, breakdown)
    steps = [(prompts(rng, 3), decodes(rng, 3)) for _ in range(6)]
    mfu_p = np.array([r["mfu"] for p, _ in steps for r in p]).T.reshape(3, -1).copy()
    mfu_d = np.array([r["mfu"] for _, d in steps for r in d]).T.reshape(3, -1).copy()
    columns, steps = ragged(steps, rng)
    mfu_table_batches.ragged_times(*bound, *columns, mfu_d, mfu_p, out, breakdown)
    agree(expected(steps), out, breakdown)


# ------------------------------------------------------------------------------------------------ MFU of attention


@pytest.mark.parametrize("batches", [(4.0,), (2.0, 4.0), (1.0, 3.0, 5.0)])
@pytest.mark.parametrize("own", [0.0, 1.0])
@pytest.mark.parametrize("cap", [NO_CAP, 4.0])
def test_decode_mfu__comes_from_a_bilinear_time(batches, own, cap):
    rng = np.random.default_rng(len(batches))
    kv_lens = (0.0, 2.0, 5.0, 9.0)
    seconds = np.cumsum(np.cumsum(rng.uniform(0.5, 2.0, (len(batches), 4)), axis=0), axis=1)
    constants = np.zeros(len(mfu_table.CONSTANTS))
    constants[mfu_table.OWN] = own
    grid = freeze(constants), freeze(batches), freeze(kv_lens), freeze(seconds), 0.7, cap
    batch, context = (a.ravel() for a in np.meshgrid(np.arange(8), np.arange(13)))
    want = [
        naive.decode_mfu(batches, kv_lens, seconds.tolist(), 0.7, cap, own, b, k)
        for b, k in zip(batch.tolist(), context.tolist(), strict=True)
    ]
    out = np.full(batch.size, np.nan)
    attention_mfu.decode_uniform(*grid, integers(batch), integers(context), out)
    npt.assert_allclose(out, want, **CLOSE)
    out[:] = np.nan  # the same steps, each as two groups: all requests but one, and that one
    there = batch > 0
    counts = np.stack([batch - 1, np.ones_like(batch)], axis=1)[there].ravel()
    offsets, contexts = 1 + 2 * np.arange(there.sum() + 1), np.repeat(context[there], 2)
    groups = np.empty(contexts.size)
    attention_mfu.decode_ragged(*grid, integers(offsets), integers([99, *contexts]), integers([99, *counts]), groups)
    npt.assert_allclose(groups.reshape(-1, 2).T, [np.array(want)[there]] * 2, **CLOSE)


@pytest.mark.parametrize("blend", ["affine", "sqrt"])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("cap", [float("inf"), 4.0])
@pytest.mark.parametrize("square", [0.0, 1.0])
def test_prefill_mfu__is_a_share_of_the_whole_prompts_time(blend, kept, cap, square):
    rng = np.random.default_rng(11)
    lengths, values = (0.0, 3.0, 6.0, 10.0), np.cumsum(rng.uniform(0.5, 2.0, 4))
    c = dict.fromkeys(mfu_table.CONSTANTS, 0.0) | {"divisor": 1.8, "square": square}
    context, new = (a.ravel() for a in np.meshgrid(np.arange(9), np.arange(7)))
    launch = 0.2
    want = [
        naive.prefill_mfu(c, lengths, values.tolist(), blend, launch, kept, 0.7, cap, p, t)
        for p, t in zip(context.tolist(), new.tolist(), strict=True)
    ]
    out = np.full(context.size, np.nan)
    rule = attention_mfu.SQRT if blend == "sqrt" else attention_mfu.AFFINE_RATE
    curve = freeze([*c.values()]), freeze(lengths), freeze(values), launch, rule, kept, 0.7, min(cap, NO_CAP)
    attention_mfu.prefill_curve(*curve, integers(context), integers(new), out)
    npt.assert_allclose(out, want, **CLOSE)


def test_bucket_mfu__takes_the_power_of_two_that_holds_the_request():
    table, out = freeze([0.1, 0.2, 0.3]), np.empty(8)
    contexts, new = integers([0, 3, 4, 4, 8, 9, 90, 0]), integers([1, 1, 1, 4, 1, 7, 10, 0])
    attention_mfu.bucket_mfu(table, np.float64(4.0), np.float64(16.0), contexts, new, out)
    npt.assert_array_equal(out, [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.3, 0.1])
