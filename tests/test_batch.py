"""Batch shapes: every spelling of the same steps gives the same columns; bad ones are named."""

from __future__ import annotations

import pickle
import re

import numpy as np
import numpy.testing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from step_strategies import ragged_batch, ragged_steps, uniform_batch, uniform_steps

from mfuroof.batch import RaggedColumns, StepBatch, UniformColumns
from mfuroof.errors import InputError

UNIFORM = ("decode_batch", "decode_context", "prefill_batch", "prefill_new_tokens", "prefill_context", "emits")


def requests(batch, i):
    """Return the groups of step ``i`` as plain tuples, whatever the form."""

    def at(column, j):
        return int(column[0] if column.size == 1 else column[j])

    if batch.form == "uniform":
        return tuple(at(getattr(batch, name), i) for name in UNIFORM)
    decode = range(batch.decode_offsets[i], batch.decode_offsets[i + 1])
    prefill = range(batch.prefill_offsets[i], batch.prefill_offsets[i + 1])
    return (
        [(at(batch.decode_counts, j), int(batch.decode_contexts[j])) for j in decode],
        [
            (
                at(batch.prefill_counts, j),
                int(batch.prefill_contexts[j]),
                int(batch.prefill_new_tokens[j]),
                at(batch.prefill_emits, j),
            )
            for j in prefill
        ],
    )


def steps_of(batch):
    return [requests(batch, i) for i in range(len(batch))]


def arrays_of(batch):
    return [getattr(batch.columns, name) for name in batch.columns.__dataclass_fields__]


def assert_frozen(batch):
    for array in arrays_of(batch):
        assert array.dtype == np.int64
        assert array.ndim == 1
        assert array.flags.c_contiguous
        assert not array.flags.writeable


# ------------------------------------------------------------------ uniform


@given(uniform_steps())
def test_uniform_keeps_what_was_given(steps):
    batch = uniform_batch(steps)
    assert batch.form == "uniform"
    assert isinstance(batch.columns, UniformColumns)
    assert len(batch) == len(steps)
    assert steps_of(batch) == steps
    assert_frozen(batch)


def test_scalars_are_constant_columns():
    batch = StepBatch.uniform(decode_batch=[1, 2, 3], decode_context=7)
    assert len(batch) == 3
    assert steps_of(batch) == [(n, 7, 0, 0, 0, 1) for n in (1, 2, 3)]
    assert batch.decode_context.shape == batch.prefill_batch.shape == (1,)
    assert len(StepBatch.uniform(decode_batch=5)) == 1
    assert len(StepBatch.uniform()) == 1


def spellings(directory):
    """The same four numbers in every form a caller may hold them."""
    plain = [0, 3, 2**20, 2**40]
    mapped = np.memmap(directory / "column.bin", dtype=np.int64, mode="w+", shape=4)
    mapped[:] = plain
    mapped.flush()
    frozen = np.array(plain)
    frozen.flags.writeable = False
    return {
        "list": plain,
        "tuple": tuple(plain),
        "range": range(4),
        "int64": np.array(plain),
        "float64": np.array(plain, float),
        "float32": np.array(plain, np.float32),
        "uint64": np.array(plain, np.uint64),
        "int8": np.array([0, 3, 7, 127], np.int8),
        "big endian": np.array(plain, ">i8"),
        "object": np.array(plain, object),
        "strided": np.repeat(np.array(plain), 2)[::2],
        "reversed": np.array(plain)[::-1],
        "read-only": frozen,
        "column of a matrix": np.array(plain).repeat(3).reshape(4, 3)[:, 1],
        "memory-mapped": np.memmap(directory / "column.bin", dtype=np.int64, mode="r", shape=4),
        "arrow": pa.array(plain),
        "arrow chunks": pa.chunked_array([plain[:1], plain[1:]]),
        "bool": np.array([True, False, True, True]),
    }


def test_every_spelling_of_a_column(tmp_path):
    for name, column in spellings(tmp_path).items():
        before = np.array(column)
        batch = StepBatch.uniform(decode_batch=column)
        assert_frozen(batch)
        npt.assert_array_equal(batch.decode_batch, before.astype(np.int64), err_msg=name)
        npt.assert_array_equal(np.array(column), before, err_msg=name)


def test_contiguous_integers_are_viewed_and_stay_the_callers():
    mine = np.array([1, 2, 3])
    batch = StepBatch.uniform(decode_batch=mine)
    assert np.shares_memory(mine, batch.decode_batch)
    assert mine.flags.writeable
    arrow = pa.array([1, 2, 3])
    assert np.shares_memory(arrow.to_numpy(), StepBatch.uniform(decode_batch=arrow).decode_batch)
    with pytest.raises(ValueError, match="read-only"):
        batch.decode_batch[0] = 9


def test_empty_columns():
    batch = StepBatch.uniform(decode_batch=[], decode_context=5)
    assert len(batch) == 0
    assert steps_of(batch) == []
    assert len(StepBatch.uniform(decode_batch=np.empty(0, np.float32))) == 0


# ------------------------------------------------------------------ ragged


@given(ragged_steps())
def test_csr_keeps_what_was_given(steps):
    batch = ragged_batch(steps)
    assert batch.form == "ragged"
    assert isinstance(batch.columns, RaggedColumns)
    assert steps_of(batch) == [(list(d), [(n, c, w, int(e)) for n, c, w, e in p]) for d, p in steps]
    assert_frozen(batch)


lists = st.lists(
    st.tuples(
        st.lists(st.integers(0, 99), max_size=3),
        st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99), st.booleans()), max_size=3),
    ),
    max_size=4,
)


@given(lists)
def test_lists_of_requests(steps):
    batch = StepBatch.ragged(
        prefill=[[(c, w) for c, w, _ in p] for _, p in steps],
        decode=[d for d, _ in steps],
        emits=[[e for _, _, e in p] for _, p in steps],
    )
    assert len(batch) == len(steps)
    assert steps_of(batch) == [([(1, c) for c in d], [(1, c, w, int(e)) for c, w, e in p]) for d, p in steps]
    assert_frozen(batch)


def test_one_phase_alone():
    assert steps_of(StepBatch.ragged(decode=[[5], []])) == [([(1, 5)], []), ([], [])]
    assert steps_of(StepBatch.ragged(prefill=[[(1, 2)]])) == [([], [(1, 1, 2, 1)])]
    assert len(StepBatch.ragged()) == len(StepBatch.from_csr()) == 0
    assert steps_of(StepBatch.ragged(decode=[np.array([1.0, 2.0])])) == [([(1, 1), (1, 2)], [])]
    assert steps_of(StepBatch.ragged(prefill=[np.array([[1, 2], [3, 4]])]))[0][1] == [(1, 1, 2, 1), (1, 3, 4, 1)]


@given(lists)
def test_arrow_lists(steps):
    columns = {
        "decode_contexts": pa.array([d for d, _ in steps], pa.list_(pa.int32())),
        "prefill_contexts": pa.array([[c for c, _, _ in p] for _, p in steps], pa.large_list(pa.int64())),
        "prefill_tokens": pa.array([[w for _, w, _ in p] for _, p in steps], pa.list_(pa.int64())),
    }
    expected = [([(1, c) for c in d], [(1, c, w, 1) for c, w, _ in p]) for d, p in steps]
    table = pa.table(columns)
    assert steps_of(StepBatch.from_arrow(table)) == expected
    doubled = pa.concat_tables([table, table])  # chunks
    assert steps_of(StepBatch.from_arrow(doubled)) == expected * 2
    assert steps_of(StepBatch.from_arrow(doubled.slice(1, len(steps)))) == (expected * 2)[1 : 1 + len(steps)]
    assert steps_of(StepBatch.from_arrow(table.slice(1, 2))) == expected[1:3]
    for record in table.to_batches():
        assert steps_of(StepBatch.from_arrow(record)) == expected


def test_arrow_lists_are_not_copied():
    values = pa.array(range(6))
    column = pa.ListArray.from_arrays(pa.array([0, 2, 6], pa.int32()), values)
    batch = StepBatch.from_arrow(pa.table({"decode_contexts": column}))
    assert np.shares_memory(batch.decode_contexts, values.to_numpy())


def test_arrow_without_contexts_means_nothing_is_cached():
    batch = StepBatch.from_arrow(pa.table({"prefill_tokens": [[7, 8], []]}))
    assert steps_of(batch) == [([], [(1, 0, 7, 1), (1, 0, 8, 1)]), ([], [])]


def test_arrow_emission_flags_hold_for_all_prompts_of_a_step():
    table = pa.table({"prefill_tokens": [[7, 8], [], [9]], "emits": [False, True, True]})
    flags = [[emits for *_, emits in prefill] for _, prefill in steps_of(StepBatch.from_arrow(table))]
    assert flags == [[0, 0], [], [1]]


@given(uniform_steps())
def test_arrow_columns(steps):
    columns = dict(zip(UNIFORM, zip(*steps, strict=True), strict=True))
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    assert steps_of(StepBatch.from_arrow(table)) == steps
    assert steps_of(StepBatch.from_arrow(pa.concat_tables([table, table]))) == steps * 2
    assert steps_of(StepBatch.from_arrow(table.to_batches()[0])) == steps
    assert steps_of(StepBatch.from_arrow(table.select(["decode_batch"]))) == [(s[0], 0, 0, 0, 0, 1) for s in steps]


# ------------------------------------------------------------------ views and copies


@given(st.one_of(uniform_steps().map(uniform_batch), ragged_steps().map(ragged_batch)), st.data())
def test_slices_are_views_of_the_same_steps(batch, data):
    bound = st.integers(-len(batch) - 2, len(batch) + 2)
    a, b, c, d = data.draw(st.tuples(bound, bound, bound, bound))
    cut = batch.slice(a, b)
    assert steps_of(cut) == steps_of(batch)[a:b]
    assert steps_of(cut.slice(c, d)) == steps_of(batch)[a:b][c:d]
    assert_frozen(cut)
    if batch.form == "ragged":
        assert np.shares_memory(cut.prefill_offsets, batch.prefill_offsets) or len(cut.prefill_offsets) == 0
        assert cut.decode_contexts is batch.decode_contexts


def test_constant_columns_survive_slicing():
    batch = StepBatch.uniform(decode_batch=[1, 2, 3], decode_context=7)
    one = batch.slice(1, 2)
    assert steps_of(one) == [(2, 7, 0, 0, 0, 1)]
    assert steps_of(one.slice(0, 1)) == [(2, 7, 0, 0, 0, 1)]
    assert steps_of(one.slice(1, 1)) == steps_of(StepBatch.uniform(decode_batch=4).slice(0, 0)) == []


@given(st.one_of(uniform_steps().map(uniform_batch), ragged_steps().map(ragged_batch)))
def test_pickle(batch):
    again = pickle.loads(pickle.dumps(batch))
    assert (again.form, len(again), steps_of(again)) == (batch.form, len(batch), steps_of(batch))
    assert_frozen(again)


def test_text():
    assert repr(StepBatch.uniform([1, 2], 7)).startswith(
        "StepBatch.uniform(2 steps: decode_batch=1..2, decode_context=7,"
    )
    assert repr(StepBatch.ragged(decode=[[5, 9]])) == (
        "StepBatch.ragged(1 steps: 2 decode groups of context 5..9, 0 prefill groups of new tokens -)"
    )


def test_unknown_attribute():
    with pytest.raises(AttributeError, match="decode_contexts"):
        StepBatch.uniform(1).decode_contexts


# ------------------------------------------------------------------ bad input

BAD_COUNTS = {
    "negative": (-1, "-1"),
    "fractional": (1.5, "1.5"),
    "NaN": (float("nan"), "nan"),
    "infinite": (float("inf"), "inf"),
    "too large": (2**40 + 1, str(2**40 + 1)),
    "beyond int64": (2**70, "1.18"),
    "unsigned wrap": (np.uint64(2**63 + 5), str(2**63 + 5)),
    "missing": (None, "nan"),
    "text": ("many", "<U4"),
    "complex": (1j, "complex128"),
    "date": (np.datetime64("2026-01-01"), "datetime64"),
    "record": ({"a": 1}, "dict"),
}


@pytest.mark.parametrize("column", UNIFORM)
@pytest.mark.parametrize("name", BAD_COUNTS)
def test_bad_count_is_named(column, name):
    value, shown = BAD_COUNTS[name]
    numeric = name in ("negative", "fractional", "NaN", "infinite", "too large")
    for spelled in (value, [1, value] if numeric else value):
        with pytest.raises(InputError, match=rf"^{column}") as caught:
            StepBatch.uniform(**{column: spelled})
        assert shown in str(caught.value)
        assert "whole numbers in [0, 2**40]" in str(caught.value)


def test_position_of_the_bad_value_is_named():
    with pytest.raises(InputError, match=re.escape("decode_batch[2]: found -7")):
        StepBatch.uniform(decode_batch=[1, 2, -7, 3])
    with pytest.raises(InputError, match=re.escape("prefill_context[1]: found 0.5")):
        StepBatch.uniform(decode_batch=[1, 2], prefill_context=[0, 0.5])


def test_all_problems_are_reported_at_once():
    with pytest.raises(InputError) as caught:
        StepBatch.uniform(decode_batch=-1, decode_context=0.5, prefill_batch=[1, float("nan")])
    assert [p.where for p in caught.value.problems] == ["decode_batch[0]", "decode_context[0]", "prefill_batch[1]"]


def test_masked_values_are_not_numbers():
    masked = np.ma.masked_array([1, 2], mask=[False, True])
    with pytest.raises(InputError, match="decode_batch"):
        StepBatch.uniform(decode_batch=masked)


def test_lengths_must_agree():
    with pytest.raises(InputError, match=r"decode_context: found 3 values, expected 2 as in decode_batch"):
        StepBatch.uniform(decode_batch=[1, 2], decode_context=[1, 2, 3])
    with pytest.raises(InputError, match="decode_context: found 3 values"):
        StepBatch.uniform(decode_batch=[1], decode_context=[1, 2, 3])
    with pytest.raises(InputError, match=r"emits.*True or False"):
        StepBatch.uniform(prefill_batch=1, prefill_new_tokens=5, emits=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefill": [[(0, 5)]], "decode": [[1], [2]]}, "prefill: found 1 steps, expected 2 as in decode"),
        ({"prefill": [[5, 6]]}, r"prefill\[0\].*\(context, new tokens\) pairs"),
        ({"prefill": [[(1, 2, 3)]]}, r"prefill\[0\].*pairs"),
        ({"prefill": [[(1, 2)], [(1, 2), (3,)]]}, r"prefill\[1\].*pairs"),
        ({"prefill": [7]}, r"prefill\[0\].*pairs"),
        ({"prefill": [[(0, -5)]]}, r"prefill_new_tokens\[0\]: found -5"),
        ({"prefill": [[(0, 2.5)]]}, r"prefill_new_tokens\[0\]: found 2.5"),
        ({"prefill": [[(2**70, 1)]]}, r"prefill_contexts\[0\]"),
        ({"prefill": [[("a", "b")]]}, "prefill_contexts"),
        ({"decode": [[1], [-2]]}, r"decode_contexts\[1\]: found -2"),
        ({"decode": [["x"]]}, "decode_contexts"),
        ({"decode": [np.array(["2026-01-01"], "datetime64[D]")]}, "decode: found values that are no numbers"),
        ({"decode": [[None]]}, "decode_contexts"),
        ({"decode": [[[1, 2], [3]]]}, r"decode\[0\]"),
        ({"decode": 5}, "decode"),
        ({"prefill": 5}, "prefill"),
        ({"prefill": [[(0, 5)]], "emits": [[True, False]]}, r"emits\[0\]: found 2 values, expected 1"),
        (
            {"prefill": [[(0, 5), (0, 6)], [(0, 7)]], "emits": [[True], [True, False]]},
            r"emits\[0\]: found 1 values, expected 2",
        ),
        ({"prefill": [[(0, 5)]], "emits": [[0.5]]}, "prefill_emits"),
        ({"prefill": [[(0, 5)]], "emits": [[2]]}, "prefill_emits.*True or False"),
        ({"prefill": [[(0, 5)]], "emits": [["yes"]]}, "prefill_emits"),
        ({"prefill": [[(0, 5)]], "emits": True}, "emits"),
        ({"prefill": [[(0, 5)]], "emits": []}, "emits: found 0 steps, expected 1"),
    ],
)
def test_bad_lists(arguments, message):
    with pytest.raises(InputError, match=message):
        StepBatch.ragged(**arguments)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"offsets": [0, 1]}, "offsets: found an unknown field"),
        ({"decode_offsets": []}, "decode_offsets"),
        ({"decode_offsets": [0, 2], "decode_contexts": [1]}, "decode_offsets.*from 0 to 1"),
        ({"decode_offsets": [1, 1], "decode_contexts": [1]}, "decode_offsets.*from 0 to 1"),
        ({"decode_offsets": [0, 2, 1, 3], "decode_contexts": [1, 2, 3]}, "decode_offsets.*rising"),
        ({"decode_contexts": [1, 2]}, "decode_offsets.*from 0 to 2"),
        (
            {"decode_offsets": [0, 1], "prefill_offsets": [0, 0, 0], "decode_contexts": [1]},
            "decode_offsets: found 2 values, expected 3",
        ),
        (
            {"decode_offsets": [0, 3], "decode_contexts": [1, 2, 3], "decode_counts": [1, 2]},
            "decode_counts: found 2 values",
        ),
        ({"prefill_offsets": [0, 1], "prefill_contexts": [1]}, "prefill_new_tokens: found 0 values, expected 1"),
        (
            {"prefill_offsets": [0, 1], "prefill_contexts": [1], "prefill_new_tokens": [1], "prefill_emits": [3]},
            "True or False",
        ),
        ({"decode_offsets": [0, 1], "decode_contexts": [1], "decode_counts": [-1]}, r"decode_counts\[0\]: found -1"),
        ({"decode_offsets": [0, 0.5]}, r"decode_offsets\[1\]: found 0.5"),
    ],
)
def test_bad_csr(columns, message):
    with pytest.raises(InputError, match=message):
        StepBatch.from_csr(**columns)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"x": [1]}), "columns: found x"),
        (pa.table({"decode_contexts": [[1]], "decode_batch": [1]}), "either uniform columns or list columns"),
        (pa.table({"decode_batch": [1, None]}), "column decode_batch: found 1 nulls"),
        (pa.table({"decode_contexts": [[1], None]}), "column decode_contexts: found 1 nulls"),
        (pa.table({"decode_contexts": [[1, None]]}), "1 nulls inside lists"),
        (pa.table({"decode_contexts": [1, 2]}), "column decode_contexts: found type int64, expected a list"),
        (pa.table({"decode_contexts": [["a"]]}), "decode_contexts"),
        (pa.table({"decode_contexts": [[1.5]]}), "decode_contexts.*1.5"),
        (pa.table({"decode_batch": ["a"]}), "decode_batch"),
        (pa.table({"decode_batch": [-3]}), r"decode_batch\[0\]: found -3"),
        (pa.table({"prefill_contexts": [[1]]}), "prefill_tokens: found no such column"),
        (
            pa.table({"prefill_contexts": [[1, 2]], "prefill_tokens": [[1]]}),
            "prefill_tokens: found lists of other lengths",
        ),
        (pa.table([[1], [2]], names=["decode_batch", "decode_batch"]), "decode_batch"),
        ({"decode_batch": [1]}, "an Arrow table"),
    ],
)
def test_bad_arrow(table, message):
    with pytest.raises(InputError, match=message):
        StepBatch.from_arrow(table)


@pytest.mark.parametrize("name", UNIFORM)
def test_texts_are_no_numbers_in_any_spelling(name):
    for texts in (["1"], np.array(["1"], object), np.array([1, "1"], object)):
        with pytest.raises(InputError, match=name):
            StepBatch.uniform(**{name: texts})
    with pytest.raises(InputError, match=name):
        StepBatch.from_arrow(pa.table({name: ["1"]}))


@pytest.mark.parametrize("decode", [[1, 2], [[[1, 2], [3, 4]]], [None], [[1], 2]])
def test_a_step_is_a_flat_list(decode):
    with pytest.raises(InputError, match=r"decode\[\d\]: found .*a flat list of numbers"):
        StepBatch.ragged(decode=decode)
