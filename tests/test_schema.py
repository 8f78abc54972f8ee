"""The registry of table families, and what `validate` lets pass and refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import TableFormatError, UnknownNameError
from mfuroof.tables import schema

GEMM = {
    "dtype": ["bf16", "bf16", "fp8"],
    "n": [128, 128, 64],
    "k": [64, 64, 64],
    "m": [1, 2, 1],
    "latency_s": [1e-6, 2e-6, 3e-6],
}


def gemm(**changes: Any) -> pa.Table:
    return pa.table({**GEMM, **changes})


def test_registry__every_family_ends_with_the_latency() -> None:
    for name, spec in schema.FAMILIES.items():
        assert name == spec.name
        assert spec.columns[-1].name == schema.LATENCY
        assert [c.kind for c in spec.columns].count("time") == 1
        assert spec.names == (*spec.keys, schema.LATENCY)
        assert len(set(spec.names)) == len(spec.names)


def test_registry__every_field_states_unit_and_meaning() -> None:
    for name in schema.FAMILIES:
        for field in schema.arrow_schema(name):
            assert field.metadata[b"unit"]
            assert field.metadata[b"meaning"]
            assert not field.nullable


def test_unknown_names__nearest_is_given() -> None:
    with pytest.raises(UnknownNameError, match="attn_decode"):
        schema.family("attn_decod")
    with pytest.raises(UnknownNameError, match="dtype"):
        schema.family("gemm").column("dtyp")


@pytest.mark.parametrize("integer", [pa.int8(), pa.int16(), pa.uint32(), pa.int64()])
@pytest.mark.parametrize(
    "text",
    [
        pa.string(),
        pa.large_string(),
        pa.dictionary(pa.int8(), pa.string()),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int64(), pa.large_string()),
    ],
)
def test_validate__any_width_becomes_the_families_own(integer: pa.DataType, text: pa.DataType) -> None:
    table = pa.table(
        {
            "m": pa.array([1, 2, 1], integer),
            "latency_s": GEMM["latency_s"],
            "dtype": pa.array(GEMM["dtype"], text),
            "n": pa.array([12, 12, 64], integer),
            "k": pa.array([64, 64, 64], integer),
        }
    )
    clean = schema.validate(table, "gemm", "here")
    assert clean.schema.equals(schema.arrow_schema("gemm"), check_metadata=True)
    assert clean.select(["dtype", "m"]).to_pydict() == {"dtype": GEMM["dtype"], "m": GEMM["m"]}


def test_validate__chunks_and_no_rows() -> None:
    chunked = pa.concat_tables([gemm().slice(0, 1), gemm().slice(1)])
    assert schema.validate(chunked, "gemm", "here").to_pydict() == gemm().to_pydict()
    assert schema.validate(gemm().slice(0, 0), "gemm", "here").num_rows == 0
    assert schema.validate(schema.arrow_schema("comm").empty_table(), "comm", "here").num_rows == 0


@pytest.mark.parametrize(
    ("table", "words"),
    [
        pytest.param(gemm().drop(["k"]), ["column k", "none"], id="missing column"),
        pytest.param(gemm(speed=[1, 2, 3]), ["column speed", "unknown"], id="extra column"),
        pytest.param(gemm().append_column("m", pa.array([1, 2, 3])), ["column m", "2 of them"], id="column twice"),
        pytest.param(gemm(m=[1.0, 2.0, 1.0]), ["column m", "double", "whole numbers"], id="fractional type"),
        pytest.param(gemm(m=["1", "2", "1"]), ["column m", "string"], id="numbers as text"),
        pytest.param(gemm(m=[1, 2**31, 1]), ["column m", "too large"], id="too large"),
        pytest.param(gemm(dtype=[1, 1, 2]), ["column dtype", "int64", "strings"], id="names as numbers"),
        pytest.param(gemm(latency_s=[1, 2, 3]), ["column latency_s", "int64"], id="integer latency"),
        pytest.param(gemm(dtype=["bf16", None, "fp8"]), ["column dtype", "row 1", "null"], id="null name"),
        pytest.param(gemm(m=[1, None, 1]), ["column m", "row 1", "null"], id="null count"),
        pytest.param(gemm(latency_s=[1e-6, 2e-6, None]), ["column latency_s", "row 2", "null"], id="null latency"),
        pytest.param(gemm(latency_s=[1e-6, 0.0, 1e-6]), ["column latency_s", "row 1", "0.0"], id="zero latency"),
        pytest.param(gemm(latency_s=[1e-6, 1e-6, -1e-6]), ["column latency_s", "row 2"], id="negative latency"),
        pytest.param(gemm(latency_s=[math.nan, 1e-6, 1e-6]), ["row 0", "nan", "finite"], id="NaN latency"),
        pytest.param(gemm(latency_s=[math.inf, 1e-6, 1e-6]), ["row 0", "inf", "finite"], id="infinite latency"),
        pytest.param(gemm(m=[-1, 2, 1]), ["column m", "row 0", "-1", "at least 1"], id="negative key"),
        pytest.param(gemm(k=[64, 64, 0]), ["column k", "row 2", "at least 1"], id="zero key"),
        pytest.param(gemm(dtype=["bf16", "bf16", "fp9"]), ["column dtype", "row 2", "fp9", "nvfp4"], id="no dtype"),
        pytest.param(gemm(m=[2, 1, 1]), ["row 1", "below", "(dtype, n, k, m)"], id="unsorted count"),
        pytest.param(gemm(dtype=["fp8", "fp8", "bf16"]), ["row 2", "below"], id="unsorted name"),
        pytest.param(gemm(m=[1, 1, 1]), ["row 1", "keys of the row before"], id="repeated key"),
    ],
)
def test_validate__names_file_column_row_and_value(table: pa.Table, words: list[str]) -> None:
    with pytest.raises(TableFormatError) as caught:
        schema.validate(table, "gemm", "some/file.parquet")
    for word in ["some/file.parquet", *words]:
        assert word in str(caught.value)


def test_validate__reports_every_column_at_once() -> None:
    with pytest.raises(TableFormatError) as caught:
        schema.validate(gemm(m=[0, 2, 1], latency_s=[1e-6, -1.0, 1e-6]), "gemm", "f")
    assert len(caught.value.problems) == 2


@given(st.lists(st.tuples(st.sampled_from(["bf16", "fp8", "nvfp4"]), *[st.integers(1, 3)] * 3), max_size=6))
def test_validate__order_is_the_order_of_tuples(keys: list[tuple[str, int, int, int]]) -> None:
    dtype, n, k, m = ([key[i] for key in keys] for i in range(4))
    table = pa.table(
        {
            "dtype": pa.array(dtype, pa.string()),
            "n": pa.array(n, pa.int64()),
            "k": pa.array(k, pa.int64()),
            "m": pa.array(m, pa.int64()),
            "latency_s": pa.array([1.0] * len(keys), pa.float64()),
        }
    )
    if keys == sorted(set(keys)):
        assert schema.validate(table, "gemm", "f").num_rows == len(keys)
    else:
        with pytest.raises(TableFormatError, match="ascending"):
            schema.validate(table, "gemm", "f")


def test_key_codes__names_become_alphabetical_ranks() -> None:
    names = pa.chunked_array([pa.array(["fp8", "bf16", "nvfp4"]), pa.array(["bf16"])])
    table = pa.table({"dtype": names.dictionary_encode(), "m": [4, 3, 2, 1]})
    np.testing.assert_array_equal(schema.key_codes(table, "dtype"), [1, 0, 2, 0])
    np.testing.assert_array_equal(schema.key_codes(table, "m"), [4, 3, 2, 1])
