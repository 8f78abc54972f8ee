"""One batch at a time: lists of requests and sums over them give what the evaluator gives."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.embedding import MIN_STEP_S, Embedded, kernel_stamp
from mfuroof.errors import InputError, MissingTableError
from mfuroof.step import COSTS, StepEvaluator

MODEL, GPU = "meta-llama/Llama-3.1-8B", "h100_sxm"
SIMS = {cost: Embedded(StepEvaluator(MODEL, GPU, cost=cost)) for cost in COSTS}
REQUESTS = st.lists(
    st.tuples(st.integers(0, 40_000), st.sampled_from([0, 1, 1, 1, 2, 17, 512, 4096])), min_size=0, max_size=20
)


def ragged(requests: list[tuple[int, int]]) -> StepBatch:
    """The definition: one new token behind a context decodes, the rest are prompts."""
    decode = [c for c, n in requests if n == 1 and c > 0]
    prefill = [(c, n) for c, n in requests if n > 0 and not (n == 1 and c > 0)]
    return StepBatch.ragged(prefill=[prefill], decode=[decode])


def columns(requests: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [c for c, _ in requests], [n for _, n in requests]


@pytest.mark.parametrize("cost", COSTS)
@given(requests=REQUESTS)
def test_step_is_what_the_evaluator_says(cost: str, requests: list[tuple[int, int]]) -> None:
    sim = SIMS[cost]
    expected = max(float(sim.evaluator.step_time(ragged(requests))[0]), MIN_STEP_S)
    assert sim.step(*columns(requests)) == expected


@pytest.mark.parametrize("cost", COSTS)
@given(batches=st.lists(REQUESTS, min_size=0, max_size=5))
def test_many_batches_are_the_same_bits(cost: str, batches: list[list[tuple[int, int]]]) -> None:
    sim = SIMS[cost]
    flat = [r for b in batches for r in b]
    offsets = np.cumsum([0, *(len(b) for b in batches)])
    together = sim.steps(offsets, *columns(flat))
    assert together.tolist() == [sim.step(*columns(b)) for b in batches]


@given(requests=REQUESTS)
def test_components_add_up(requests: list[tuple[int, int]]) -> None:
    sim = SIMS["kernels"]
    parts = sim.step_components(*columns(requests))
    assert tuple(parts) == sim.components
    assert sum(parts.values()) == pytest.approx(sim.evaluator.step_time(ragged(requests))[0], rel=1e-12)


def test_results_are_python_floats_and_never_zero() -> None:
    sim = SIMS["kernels"]
    assert type(sim.step([], [])) is float and sim.step([], []) == MIN_STEP_S
    assert type(sim.step(np.array([5]), np.array([1]))) is float
    assert type(sim.aggregate(1, 6)) is float
    assert all(type(v) is float for v in sim.step_components([5], [1]).values())
    assert sim.step([100, 7], [0, 0]) == MIN_STEP_S
    assert Embedded(sim.evaluator, min_step_s=0.0).step([], []) == 0.0
    assert Embedded(sim.evaluator, min_step_s=1.0).step([5], [1]) == 1.0


def test_flags_override_the_rule() -> None:
    sim, bound = SIMS["kernels"], SIMS["kernels"].evaluator
    chunk = bound.step_time(StepBatch.ragged(prefill=[[(9000, 1)]]))[0]
    decode = bound.step_time(StepBatch.ragged(decode=[[9000]]))[0]
    assert sim.step([9000], [1]) == decode
    assert sim.step([9000], [1], is_decode=[False]) == chunk
    assert sim.step([0], [1], is_decode=[True]) == bound.step_time(StepBatch.ragged(decode=[[0]]))[0]
    silent = bound.step_time(StepBatch.ragged(prefill=[[(0, 512)]], emits=[[False]]))[0]
    assert sim.step([0], [512], emits=[False]) == silent < sim.step([0], [512])


@pytest.mark.parametrize(
    "spelling",
    [
        lambda a: a.tolist(),
        lambda a: tuple(a.tolist()),
        lambda a: a.astype(np.int32),
        lambda a: a.astype(np.uint64),
        lambda a: a.astype(np.float64),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(object),
        lambda a: a.astype(">i8"),
        lambda a: np.repeat(a, 2)[::2],
        lambda a: a[::-1].copy()[::-1],
        lambda a: pa.array(a),
        lambda a: pa.chunked_array([a[:1], a[1:]]),
        lambda a: np.asarray(memoryview(a.tobytes())).view(np.int64),
    ],
)
def test_every_spelling_of_whole_numbers_is_read(spelling) -> None:  # type: ignore[no-untyped-def]
    context, new = np.array([2047, 100, 0, 30]), np.array([1, 1, 512, 64])
    sim = SIMS["kernels"]
    assert sim.step(spelling(context), spelling(new)) == sim.step(context, new)


def test_memory_mapped_and_read_only_arrays_share_one_compiled_kernel(tmp_path: Path) -> None:
    from mfuroof.embedding.kernels import split

    np.array([2047, 100]).tofile(tmp_path / "context")
    mapped = np.memmap(tmp_path / "context", np.int64, "r")
    assert SIMS["kernels"].step(mapped, np.ones(2, np.int64)) == SIMS["kernels"].step([2047, 100], [1, 1])
    assert len(getattr(split, "signatures", [1])) == 1


@pytest.mark.parametrize(
    ("context", "new", "more", "where"),
    [
        ([1, 2], [1], {}, "new_tokens"),
        ([1], [1], {"is_decode": [True, False]}, "is_decode"),
        ([1], [1], {"emits": []}, "emits"),
        ([-1], [1], {}, r"context_lens\[0\]"),
        ([1], [-1], {}, r"new_tokens\[0\]"),
        ([1.5], [1], {}, r"context_lens\[0\]"),
        ([float("nan")], [1], {}, r"context_lens\[0\]"),
        ([2**41], [1], {}, r"context_lens\[0\]"),
        ([2**70], [1], {}, "context_lens"),
        (["a"], [1], {}, "context_lens"),
        ([None], [1], {}, "context_lens"),
        (None, [1], {}, "context_lens"),
        ([[1], [2, 3]], [1], {}, "context_lens"),
        ([[1, 2]], [[1, 1]], {}, "context_lens"),
        (3, 1, {}, "context_lens"),
        (np.ma.array([1, 2], mask=[0, 1]), [1, 1], {}, "context_lens"),
        (pa.array([1, None]), [1, 1], {}, r"context_lens\[1\]"),
        (np.array(["2020-01-01"], "M8[D]"), [1], {}, "context_lens"),
        ([5, 5], [1, 2], {"is_decode": [True, True]}, r"new_tokens\[1\]"),
        (np.array([2**64 - 1], np.uint64), [1], {}, r"context_lens\[0\]"),
    ],
)
def test_bad_requests_get_one_error(context, new, more, where) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=where):
        SIMS["kernels"].step(context, new, **more)


def test_bad_offsets_and_makers() -> None:
    sim = SIMS["kernels"]
    for offsets in ([], [0, 2], [1, 1], [0, 2, 1], [0.5, 1]):
        with pytest.raises(InputError, match="offsets"):
            sim.steps(offsets, [5], [1])
    with pytest.raises(InputError, match="evaluator"):
        Embedded("llama")  # type: ignore[arg-type]
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="min_step_s"):
            Embedded(sim.evaluator, min_step_s=bad)


def test_a_step_without_a_price_raises() -> None:
    from dataclasses import replace

    sim = SIMS["kernels"]
    cells = sim.evaluator.bound.total.cells.copy()  # type: ignore[attr-defined]
    cells[:] = np.nan
    cells.flags.writeable = False
    broken = pickle.loads(pickle.dumps(sim.evaluator))
    broken.bound = replace(broken.bound, total=broken.bound.total._replace(cells=cells))
    with pytest.raises(MissingTableError, match="missing"):
        Embedded(broken).step([5], [1])
    with pytest.raises(MissingTableError, match="missing"):
        Embedded(broken).aggregates([1, 1], [6, 6])


def test_threads_do_not_share_buffers() -> None:
    sim = SIMS["kernels"]
    batches = [([c] * 40, [1] * 40) for c in range(100, 3000, 100)]
    expected = [sim.step(*b) for b in batches]
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            wrong.extend(i for i, b in enumerate(batches) if sim.step(*b) != expected[i])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_pickles_and_grows() -> None:
    sim = SIMS["kernels"]
    copy = pickle.loads(pickle.dumps(sim))
    big = [1000] * 5000, [1] * 5000
    assert copy.step(*big) == sim.step(*big) == sim.steps([0, 5000], *big)[0]
    assert repr(copy).startswith("Embedded(StepEvaluator(")


def test_capacity_is_that_of_kv_capacity() -> None:
    from mfuroof.capacity import kv_capacity

    sim = SIMS["kernels"]
    assert sim.num_kv_blocks(32, 0.8) == kv_capacity(MODEL, GPU, 1, block_size=32, memory_utilization=0.8).num_kv_blocks


# ---------------------------------------------------------------------------------------------------- aggregates


def sums(contexts: list[int], prompts: list[tuple[int, int]]) -> dict[str, float]:
    return {
        "num_decode": len(contexts),
        "decode_kv_tokens": sum(c + 1 for c in contexts),
        "longest_context": max(contexts, default=0),
        "prefill_tokens": sum(n for _, n in prompts),
        "prefill_area": sum(n * (c + n / 2) for c, n in prompts),
        "num_prefill": len(prompts),
    }


@pytest.mark.parametrize("cost", COSTS)
@given(n=st.integers(1, 300), context=st.integers(0, 30_000), b=st.integers(1, 8), new=st.integers(1, 3000),
       cached=st.integers(0, 20_000))  # fmt: skip
def test_like_requests_are_given_back(cost: str, n: int, context: int, b: int, new: int, cached: int) -> None:
    sim = SIMS[cost]
    given_sums = sums([context] * n, [(cached, new)] * b)
    expected = sim.evaluator.step_time(StepBatch.ragged(prefill=[[(cached, new)] * b], decode=[[context] * n]))[0]
    assert sim.aggregate(**given_sums) == pytest.approx(expected, rel=1e-9)
    assert sim.aggregate(**{**given_sums, "longest_context": 0}) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("cost", COSTS)
def test_distance_from_the_requests(cost: str) -> None:
    sim = SIMS[cost]
    away = distances(sim, 300)
    limits = {"kernels": (0.003, 0.02), "mfu_table": (0.007, 0.04), "constant_mfu": (1e-4, 1e-3)}[cost]
    assert np.mean(away) < limits[0], (np.mean(away), away.max())
    assert away.max() < limits[1], (np.mean(away), away.max())


def distances(sim: Embedded, number: int) -> np.ndarray:
    """Relative distance of the aggregate from the requests, over steps of a server with lognormal lengths."""
    rng = np.random.default_rng(7)
    away = []
    for _ in range(number):
        contexts = np.minimum(rng.lognormal(7.0, 1.0, rng.integers(0, 200)), 60_000).astype(int).tolist()
        prompts = [(int(rng.choice([0, 0, 2048])), int(n)) for n in rng.integers(16, 2048, rng.integers(0, 5))]
        exact = sim.evaluator.step_time(StepBatch.ragged(prefill=[prompts], decode=[contexts]))[0]
        if contexts or prompts:
            away.append(sim.aggregate(**sums(contexts, prompts)) / exact - 1.0)
    return np.abs(away)


def test_arrays_of_sums_are_the_same_bits() -> None:
    sim, rng = SIMS["kernels"], np.random.default_rng(3)
    n = rng.integers(0, 100, 500)
    kv = n * rng.integers(1, 5000, 500) + n // 2
    tokens = rng.integers(0, 4000, 500)
    area = np.where(tokens > 0, tokens * 900.5 + 0.5 * tokens**2, 0.0)
    together = sim.aggregates(n, kv, 0, tokens, area, emits=rng.integers(0, 2, 500) > 2)
    alone = [
        sim.aggregate(int(a), int(b), 0, int(c), float(d), emits=False)
        for a, b, c, d in zip(n, kv, tokens, area, strict=True)
    ]
    assert together.tolist() == alone
    assert sim.aggregate() == MIN_STEP_S
    assert sim.aggregates([], []).shape == (0,)
    assert sim.aggregate(np.int32(4), np.int64(400)) == sim.aggregate(4, 400)  # type: ignore[arg-type]


def test_prompts_of_unknown_number_are_the_fewest() -> None:
    sim = SIMS["kernels"]
    one = sim.evaluator.step_time(StepBatch.ragged(prefill=[[(0, 2048)]]))[0]
    two = sim.evaluator.step_time(StepBatch.ragged(prefill=[[(0, 1024), (0, 1024)]]))[0]
    assert sim.aggregate(prefill_tokens=2048) == one
    assert sim.aggregate(prefill_tokens=2048, prefill_area=2048**2 / 2) == one
    assert sim.aggregate(prefill_tokens=2048, prefill_area=2048**2 / 4) == pytest.approx(two, rel=1e-9)
    assert sim.aggregate(prefill_tokens=2048, num_prefill=2) == pytest.approx(two, rel=1e-9)


@pytest.mark.parametrize(
    ("given_sums", "where"),
    [
        ({"num_decode": -1}, "num_decode"),
        ({"num_decode": 1.5, "decode_kv_tokens": 10}, "num_decode"),
        ({"num_decode": float("nan")}, "num_decode"),
        ({"num_decode": 5, "decode_kv_tokens": 4}, "decode_kv_tokens"),
        ({"num_decode": 2, "decode_kv_tokens": 100, "longest_context": 99}, "longest_context"),
        ({"num_decode": 2, "decode_kv_tokens": 100, "longest_context": 10}, "longest_context"),
        ({"decode_kv_tokens": 4}, "num_decode"),
        ({"prefill_area": 4.0}, "prefill_tokens"),
        ({"prefill_tokens": 100, "prefill_area": 1.0, "num_prefill": 1}, "prefill_area"),
        ({"prefill_tokens": 100, "num_prefill": 101}, "num_prefill"),
        ({"prefill_tokens": 100, "prefill_area": float("inf")}, "prefill_area"),
        ({"prefill_tokens": 2**41}, "prefill_tokens"),
        ({"num_decode": "many"}, "num_decode"),
        ({"prefill_tokens": 10, "prefill_area": "wide"}, "prefill_area"),
        ({"num_decode": [1, 2], "decode_kv_tokens": [3, 4, 5]}, "values"),
    ],
)
def test_sums_that_no_batch_has(given_sums: dict[str, object], where: str) -> None:
    with pytest.raises(InputError, match=where):
        SIMS["kernels"].aggregates(**given_sums)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=where):
        SIMS["kernels"].aggregate(**given_sums)  # type: ignore[arg-type]


def test_stamp_names_the_kernels() -> None:
    import mfuroof

    assert kernel_stamp().startswith(mfuroof.__version__ + "+") and kernel_stamp() is kernel_stamp()


def test_works_in_a_forked_child() -> None:
    code = (
        "import os, sys\n"
        "from mfuroof.embedding import Embedded\nfrom mfuroof.step import StepEvaluator\n"
        f"s = Embedded(StepEvaluator({MODEL!r}, {GPU!r})); t = s.step([9], [1])\n"
        "pid = os.fork()\n"
        "if pid == 0: os._exit(0 if s.step([9], [1]) == t else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
