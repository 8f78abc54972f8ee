"""The embedded database and the reader of it."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mfuroof.errors import InputError, MissingTableError, TableFormatError, UnknownNameError
from mfuroof.tables import schema, store, write
from mfuroof.tables.quality import beaten_rows
from mfuroof.tables.write import write_table

THREE_ENGINES = ("b200_sxm", "b300_sxm", "h100_sxm", "h200_sxm")
ONE_ENGINE = ("a100_sxm", "l40s", "rtx_pro_6000_server")
GPUS = (*THREE_ENGINES, *ONE_ENGINE)
COMMITTED = [
    (gpu, engine, name)
    for gpu, engines in store.available().items()
    for engine, names in engines.items()
    for name in names
]


def comm(latency_s: float = 1e-5) -> pa.Table:
    rows = [("all_gather", "nccl"), ("all_reduce", "custom"), ("all_reduce", "nccl")]
    table = pa.table(
        {
            "op": [op for op, _ in rows for _ in range(4)],
            "backend": [backend for _, backend in rows for _ in range(4)],
            "dtype": ["fp16"] * 12,
            "num_gpus": [2, 2, 4, 4] * 3,
            "elements": [128, 256] * 6,
            "latency_s": np.arange(1, 13) * latency_s,
        }
    )
    return schema.validate(table, "comm", "test")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(write, "GROUP_ROWS", 1)
    record = {"family": "comm", "rows": 12}
    write_table(comm(), record, tmp_path / "gpu_a" / "comm", "vllm")
    write_table(comm(), record, tmp_path / "gpu_a" / "comm", "sglang")
    write_table(comm(2e-5), record, tmp_path / "gpu_b" / "comm", "vllm")
    return tmp_path


def test_embedded__holds_what_is_promised() -> None:
    found = store.available()
    assert set(GPUS) <= set(found)
    everywhere = {"gemm", "attn_prefill", "attn_decode", "moe", "comm"}
    module = {"mla_module_prefill", "mla_module_decode"}
    sparse = {"dsa_module_prefill", "dsa_module_decode", "mla_bmm", "gdn"}
    kernels = {"mla_prefill", "mla_decode"}
    for gpu in THREE_ENGINES:
        assert set(found[gpu]["vllm"]) == everywhere | module | sparse
        assert set(found[gpu]["sglang"]) == everywhere | kernels | sparse
        assert set(found[gpu]["trtllm"]) == everywhere | module | kernels | sparse | {"mamba2", "act_scale"}
    assert set(found["a100_sxm"]["vllm"]) == everywhere  # its engine version has no kernel of latent attention
    for gpu in ("l40s", "rtx_pro_6000_server"):
        assert set(found[gpu]["vllm"]) == everywhere | module | {"gdn"}


def test_embedded__size_is_bounded() -> None:
    sizes = [p.stat().st_size for p in store.bench_data_root().rglob("*") if p.is_file()]
    assert sum(sizes) <= 25e6


@pytest.mark.parametrize("gpu", GPUS)
def test_embedded__weights_of_every_precision(gpu: str) -> None:
    expected = {"bf16"} | ({"fp8", "fp8_block"} if gpu != "a100_sxm" else set())
    expected |= {"nvfp4"} if gpu in ("b200_sxm", "b300_sxm", "rtx_pro_6000_server") else set()
    for engine in store.available()[gpu]:
        tables = store.load_tables(gpu, engine)
        assert set(pc.unique(tables.family("gemm")["dtype"]).to_pylist()) == expected
        assert expected - {"fp8", "fp8_block"} <= set(pc.unique(tables.family("moe")["dtype"]).to_pylist())


def test_embedded__one_row_of_weights_streams_faster_in_fewer_bits() -> None:
    """Launch-bound or untuned kernels would break this: 8-bit weights of a large layer take less time than 16-bit."""
    for gpu, engines in store.available().items():
        if gpu == "a100_sxm":
            continue
        for engine in engines:
            one = store.load_tables(gpu, engine).family("gemm", n=10240, k=8192, m=16)
            times = dict(zip(one["dtype"].to_pylist(), one["latency_s"].to_pylist(), strict=True))
            assert max(times["fp8"], times["fp8_block"]) < times["bf16"], (gpu, engine)


@pytest.mark.parametrize(("gpu", "engine", "name"), COMMITTED)
def test_embedded__is_valid_and_matches_its_provenance(gpu: str, engine: str, name: str) -> None:
    tables = store.load_tables(gpu, engine)
    table = tables.family(name)  # validates
    record = tables.provenance(name)
    assert record["rows"] == table.num_rows > 0
    assert (record["gpu"], record["engine"], record["family"]) == (gpu, engine, name)
    assert record["license"] == "Apache-2.0"
    assert record["package_version"]
    assert record["date"]
    assert record["script"]
    assert all(s["path"] and len(s["sha256"]) == 64 and s["kernel_sources"] for s in record["sources"])
    for source in record["sources"]:
        assert source["rows_used"] - source["repeated"]["rows_merged"] == source["rows_out"]
    removed = sum(s["own_rows_replaced"] for s in record["substitutions"])
    assert sum(s["rows_out"] for s in record["sources"]) - removed == record["rows"]
    assert record["quality"] == beaten_rows(table, name)
    assert all(isinstance(text, str) for text in record["findings"])


@pytest.mark.parametrize(("gpu", "engine"), [(g, e) for g, engines in store.available().items() for e in engines])
def test_embedded__collectives_and_window(gpu: str, engine: str) -> None:
    tables = store.load_tables(gpu, engine)
    custom = tables.family("comm", backend="custom")
    assert pc.unique(custom["op"]).to_pylist() == ["all_reduce"]
    assert sorted(pc.unique(tables.family("comm", backend="nccl")["op"]).to_pylist()) == [
        "all_gather",
        "all_reduce",
        "all_to_all",
        "reduce_scatter",
    ]
    assert sorted(pc.unique(custom["num_gpus"]).to_pylist()) == [2, 4, 8]
    assert 0 in pc.unique(tables.family("attn_decode")["sliding_window"]).to_pylist()


def test_embedded__units_are_seconds() -> None:
    """One decode of 32 sequences of 2048 tokens, Llama-3.1-8B heads, on an H100: known to be 0.1 ms a layer."""
    row = store.load_tables("h100_sxm").family(
        "attn_decode",
        kv_dtype="bf16",
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        sliding_window=0,
        batch_size=32,
        kv_len=2048,
    )
    assert row.num_rows == 1
    assert row["latency_s"][0].as_py() == pytest.approx(1.0e-4, rel=0.1)


def test_load_tables__by_name_folder_and_spelling(root: Path) -> None:
    assert store.load_tables("H100-SXM").gpu == "h100_sxm"
    by_folder = store.load_tables(root / "gpu_a", "sglang")
    by_text = store.load_tables(f"{root}/gpu_a", "sglang")
    by_root = store.load_tables("gpu_a", "sglang", root=root)
    assert by_folder == by_text == dataclasses.replace(by_root, folder=by_folder.folder)
    assert by_root.family("comm").equals(by_folder.family("comm"))
    assert {gpu: dict(e) for gpu, e in store.available(root).items()} == {
        "gpu_a": {"sglang": ("comm",), "vllm": ("comm",)},
        "gpu_b": {"vllm": ("comm",)},
    }


def test_load_tables__unknown_names(root: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean h100_sxm"):
        store.load_tables("h100_sx")
    with pytest.raises(UnknownNameError, match="vllm"):
        store.load_tables("h100_sxm", "vlm")
    with pytest.raises(UnknownNameError, match="gpu_a"):
        store.load_tables("gpu_c", root=root)
    with pytest.raises(MissingTableError, match="existing folder"):
        store.load_tables(root / "nowhere")
    with pytest.raises(MissingTableError, match="gpu_a; gpu_b"):
        store.load_tables(root)
    (root / "empty").mkdir()
    with pytest.raises(MissingTableError, match="any engine"):
        store.load_tables(root / "empty")
    assert store.available(root / "nowhere") == {}


def test_family__missing_or_unknown(root: Path) -> None:
    tables = store.load_tables("gpu_a", root=root)
    assert tables.has("comm")
    assert not tables.has("gemm")
    assert tables.families == ("comm",)
    with pytest.raises(MissingTableError, match=r"gemm of gpu_a, vllm; there is: comm"):
        tables.family("gemm")
    with pytest.raises(MissingTableError):
        tables.provenance("gemm")
    for call in (tables.has, tables.family, tables.provenance):
        with pytest.raises(UnknownNameError, match="comm"):
            call("com")
    with pytest.raises(UnknownNameError, match="num_gpus"):
        tables.family("comm", num_gpu=2)
    with pytest.raises(InputError, match="integer"):
        tables.family("comm", num_gpus="two")
    with pytest.raises(InputError, match="a name"):
        tables.family("comm", op=1)


@pytest.mark.parametrize(
    "where",
    [
        {"op": "all_reduce"},
        {"op": ["all_reduce", "all_gather"], "backend": "nccl"},
        {"num_gpus": 4},
        {"num_gpus": [2, 4], "elements": 256, "op": "all_gather"},
        {"num_gpus": 3},
        {"dtype": "bf16"},
        {"op": []},
    ],
)
def test_family__filter_equals_filtering_the_whole(root: Path, where: dict[str, object]) -> None:
    expected = [
        row
        for row in comm().to_pylist()
        if all(row[c] in (v if isinstance(v, list) else [v]) for c, v in where.items())
    ]
    fresh = store.load_tables("gpu_a", root=root)
    assert fresh.family("comm", **where).to_pylist() == expected
    fresh.family("comm")
    assert store.load_tables("gpu_a", root=root).family("comm", **where).equals(fresh.family("comm", **where))
    assert fresh.family("comm", **where) is fresh.family("comm", **where)


def test_write_table__small_row_groups_are_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for least, groups in ((1, 3), (4, 3), (5, 2), (8, 2), (9, 1), (4096, 1)):
        monkeypatch.setattr(write, "GROUP_ROWS", least)
        path = write_table(comm(), {"family": "comm"}, tmp_path / str(least), "vllm")
        assert pq.ParquetFile(path).num_row_groups == groups
        assert pq.read_table(path).equals(comm())
    assert pq.ParquetFile(write_table(comm().slice(0, 0), {"family": "comm"}, tmp_path, "empty")).num_row_groups == 0


def test_family__only_wanted_row_groups_are_read(root: Path) -> None:
    path = root / "gpu_a" / "comm" / "vllm.parquet"
    assert pq.ParquetFile(path).num_row_groups == 3
    content = bytearray(path.read_bytes())
    first = pq.ParquetFile(path).metadata.row_group(0).column(5)
    start = first.data_page_offset
    content[start : start + 20] = bytes(20)  # damages all_gather only
    path.write_bytes(content)
    tables = store.load_tables("gpu_a", root=root)
    assert tables.family("comm", op="all_reduce").num_rows == 8
    with pytest.raises(TableFormatError, match=r"vllm.parquet"):
        tables.family("comm")


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "columns", "values", "folder"])
def test_family__damaged_file_is_named(root: Path, damage: str) -> None:
    path = root / "gpu_a" / "comm" / "vllm.parquet"
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "text":
        path.write_text("op,backend\n")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "columns":
        pq.write_table(comm().drop(["elements"]), path)
    elif damage == "values":
        pq.write_table(pa.concat_tables([comm(), comm()]), path)
    else:
        path.unlink()
        path.mkdir()
    tables = store.load_tables("gpu_a", root=root)
    error = MissingTableError if damage == "folder" else TableFormatError
    with pytest.raises(error) as caught:
        tables.family("comm", op="all_reduce")
    assert damage == "folder" or "vllm.parquet" in str(caught.value)
    assert damage != "columns" or "elements" in str(caught.value)
    assert damage != "values" or "ascending" in str(caught.value)


def test_family__foreign_types_are_refused_not_filtered(root: Path) -> None:
    path = root / "gpu_a" / "comm" / "vllm.parquet"
    numbered = comm().set_column(0, "op", pa.array(range(12)))
    pq.write_table(numbered, path)
    with pytest.raises(TableFormatError, match="column op"):
        store.load_tables("gpu_a", root=root).family("comm", op="all_reduce")


def test_provenance__damaged_or_absent(root: Path) -> None:
    tables = store.load_tables("gpu_a", root=root)
    assert tables.provenance("comm")["rows"] == 12
    path = root / "gpu_a" / "comm" / "vllm.provenance.json"
    path.write_text("{")
    with pytest.raises(TableFormatError, match=r"provenance.json"):
        tables.provenance("comm")
    path.write_text(json.dumps([1]))
    with pytest.raises(TableFormatError, match="a JSON list"):
        tables.provenance("comm")
    path.unlink()
    with pytest.raises(MissingTableError, match="provenance"):
        tables.provenance("comm")


def test_tables__pickle_carries_the_place_only(root: Path) -> None:
    tables = store.load_tables("gpu_a", root=root)
    empty = len(pickle.dumps(tables))
    tables.family("comm")
    again = pickle.loads(pickle.dumps(tables))
    assert again == tables
    assert len(pickle.dumps(tables)) == empty
    assert again.family("comm").equals(tables.family("comm"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        tables.gpu = "x"  # type: ignore[misc]
