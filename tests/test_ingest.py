"""Reading AIConfigurator's layout: mapping, units, repeated keys, substitutions, provenance; the committed files."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import random
import statistics
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import MissingTableError, OutputError, TableFormatError, UnknownNameError
from mfuroof.ingest import aiconfigurator, mapping, merge, slots, source
from mfuroof.tables import quality, schema, store

LABELS = {"framework": "VLLM", "version": "0.24.0", "device": "GPU", "op_name": "op", "kernel_source": "kernel"}
GEMM_KEYS = {"gemm_dtype": "bfloat16", "m": 8, "n": 64, "k": 32}
ATTENTION = {
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
    "num_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "beam_width": 1,
    "batch_size": 4,
}
MLA = {
    "mla_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
    "num_heads": 16,
    "batch_size": 4,
    "model": "org/model",
    "architecture": "SomeForCausalLM",
    "gemm_type": "fp8_block",
    "tp_size": 1,
}
GDN = {
    "phase": "context",
    "batch_size": 2,
    "seq_len": 16,
    "num_tokens": 32,
    "d_model": 1024,
    "d_conv": 4,
    "num_k_heads": 8,
    "head_k_dim": 128,
    "num_v_heads": 16,
    "head_v_dim": 64,
    "model_name": "org/model",
}
REDUCE = {"op_name": "all_reduce", "allreduce_dtype": "bfloat16", "num_gpus": 2, "message_size": 128}
NCCL = {"op_name": "alltoall", "nccl_dtype": "half", "num_gpus": 2, "message_size": 256, "kernel_source": "NCCL"}


def rows(*records: Mapping[str, Any]) -> pa.Table:
    return pa.Table.from_pylist([{**LABELS, **record} for record in records])


def put(root: Path, path: str, table: pa.Table) -> None:
    target = root / "systems" / "data" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, target)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A package of one GPU, h100_sxm, whose vLLM slot holds every family once or twice."""
    root = tmp_path / "package"
    gemm = [{**GEMM_KEYS, "latency": t} for t in (4.0, 1.0, 2.0)] + [{**GEMM_KEYS, "m": 1, "latency": 0.5}]
    block = {**GEMM_KEYS, "gemm_dtype": "fp8_block"}
    own = [{**block, "n": n, "latency": t} for n, t in ((64, 9.0), (128, 9.0), (256, 9.0))]
    sibling = [{**block, "n": n, "latency": t} for n, t in ((64, 3.0), (128, 12.0))]
    put(root, "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", rows(*gemm, *own))
    put(root, "h100_sxm/gemm/sglang/0.5.14/gemm_perf.parquet", rows(*sibling, {**GEMM_KEYS, "latency": 77.0}))
    prefill = {**ATTENTION, "isl": 16, "step": 0, "latency": 1.5}  # an old slot: no window_size column
    put(root, "h100_sxm/attention/vllm/0.24.0/context_attention_perf.parquet", rows(prefill))
    decode = {**ATTENTION, "isl": 1, "step": 127, "window_size": 64, "latency": 2.5}
    put(root, "h100_sxm/attention/vllm/0.24.0/generation_attention_perf.parquet", rows(decode))
    experts = {
        "moe_dtype": "w4a16_mxfp4",
        "num_tokens": 8,
        "hidden_size": 64,
        "inter_size": 96,
        "topk": 2,
        "num_experts": 4,
        "moe_tp_size": 1,
        "moe_ep_size": 2,
        "distribution": "balanced",
    }
    kernels = [{**experts, "kernel_source": k, "latency": t} for k, t in (("a", 1.0), ("a", 5.0), ("b", 2.0))]
    put(root, "h100_sxm/moe/vllm/0.24.0/moe_perf.parquet", rows(*kernels))
    module = {**MLA, "isl": 1, "step": 8, "latency": 0.25}
    put(root, "h100_sxm/mla/vllm/0.24.0/mla_generation_module_perf.parquet", rows(module))
    reduce = [
        {**REDUCE, "kernel_source": f"vLLM_custom_{mode}", "backend": f"vllm_{mode}", "latency": t}
        for mode, t in (("eager", 0.1), ("graph", 0.25))
    ]
    put(root, "h100_sxm/comm/vllm/0.24.0/custom_allreduce_perf.parquet", rows(*reduce))
    put(root, "h100_sxm/comm/nccl/2.9.1/nccl_perf.parquet", rows({**NCCL, "latency": 0.125}, {**NCCL, "latency": 0.5}))
    (root / "systems" / "h100_sxm.yaml").write_text("misc:\n  nccl_version: '2.9.1'\n")
    return root


def ingest(tree: str | Path, out: Path, **options: Any) -> dict[str, tuple[list[dict[str, Any]], dict[str, Any]]]:
    """Ingest and return family -> (rows, provenance)."""
    written = aiconfigurator.ingest(tree, "h100_sxm", ["vllm"], out, **options)
    tables = store.load_tables(out / "h100_sxm")
    assert [w.family for w in written] == list(tables.families)
    return {w.family: (tables.family(w.family).to_pylist(), dict(tables.provenance(w.family))) for w in written}


def test_ingest__names_units_and_dtypes(tree: Path, tmp_path: Path) -> None:
    found = ingest(tree, tmp_path / "out")
    gqa = {"attn_dtype": "bf16", "kv_dtype": "fp8", "num_attention_heads": 32, "num_key_value_heads": 8}
    gqa |= {"head_dim": 128, "batch_size": 4}
    assert found["attn_prefill"][0] == [gqa | {"sliding_window": 0, "new_tokens": 16, "latency_s": 1.5e-3}]
    assert found["attn_decode"][0] == [gqa | {"sliding_window": 64, "kv_len": 128, "latency_s": 2.5e-3}]
    assert found["mla_module_decode"][0] == [
        {
            "gemm_dtype": "fp8_block",
            "attn_dtype": "bf16",
            "kv_dtype": "fp8",
            "architecture": "SomeForCausalLM",
            "num_attention_heads": 16,
            "batch_size": 4,
            "kv_len": 9,
            "latency_s": 0.25e-3,
        }
    ]
    assert found["comm"][0] == [
        {"op": op, "backend": backend, "dtype": dtype, "num_gpus": 2, "elements": elements, "latency_s": latency_s}
        for op, backend, dtype, elements, latency_s in (
            ("all_reduce", "custom", "bf16", 128, 0.25e-3),
            ("all_to_all", "nccl", "fp16", 256, pytest.approx(0.3125e-3, rel=1e-15)),
        )
    ]
    assert set(found) == {"gemm", "attn_prefill", "attn_decode", "moe", "mla_module_decode", "comm"}


def test_ingest__repeated_keys(tree: Path, tmp_path: Path) -> None:
    found = ingest(tree, tmp_path / "out")
    gemm, record = found["gemm"]
    dense = [r for r in gemm if r["dtype"] == "bf16"]
    assert [(r["m"], r["latency_s"]) for r in dense] == [(1, 0.5e-3), (8, 2.0e-3)]  # the median of 4, 1, 2
    repeated = record["sources"][0]["repeated"]
    assert (repeated["keys"], repeated["rows_merged"], repeated["largest_ratio"]) == (1, 2, 4.0)
    assert repeated["largest_at"] == {"dtype": "bf16", "n": 64, "k": 32, "m": 8}
    experts, record = found["moe"]
    assert experts[0]["latency_s"] == 2.0e-3  # median of a is 3, of b is 2; the faster kernel
    assert record["sources"][0]["repeated"]["keys_with_several_kernel_sources"] == 1
    assert record["sources"][0]["kernel_sources"] == {"a": 2, "b": 1}


def test_ingest__substitution_takes_the_lower_on_the_siblings_keys(tree: Path, tmp_path: Path) -> None:
    gemm, record = ingest(tree, tmp_path / "out", families="gemm")["gemm"]
    block = [(r["n"], r["latency_s"]) for r in gemm if r["dtype"] == "fp8_block"]
    assert block == [(64, pytest.approx(3e-3)), (128, pytest.approx(9e-3))]
    (rule,) = record["substitutions"]
    assert (rule["own_rows_replaced"], rule["sibling_rows"], rule["own_latency_kept"]) == (3, 2, 1)
    assert rule["from"] == "sglang 0.5.14"
    assert rule["reason"]
    assert [s["rows_out"] for s in record["sources"]] == [5, 2]


def test_ingest__substitution_fills_only_what_is_absent(tree: Path, tmp_path: Path) -> None:
    for gpu, version in (("l40s", "0.22.0"), ("l40s", "0.24.0")):
        latency = 3.0 if version == "0.22.0" else 5.0
        reduce = {**REDUCE, "kernel_source": "vLLM_custom_graph", "latency": latency}
        put(tree, f"{gpu}/comm/vllm/{version}/custom_allreduce_perf.parquet", rows(reduce))
        (written,) = aiconfigurator.ingest(tree, gpu, "vllm", tmp_path / version)
        record = store.load_tables("l40s", root=tmp_path / version).provenance("comm")
        assert pq.read_table(written.path)["latency_s"].to_pylist() == [pytest.approx(latency * 1e-3)]
        assert len(record["substitutions"]) == (version == "0.22.0")


def test_ingest__substitution_from_another_gpu(tree: Path, tmp_path: Path) -> None:
    module = {**MLA, "isl": 1, "step": 8}
    for gpu, latency in (("b300_sxm", 4.0), ("b200_sxm", 3.0)):
        table = rows({**module, "latency": latency}, {**module, "step": 16, "latency": 7.0 - latency})
        put(tree, f"{gpu}/mla/vllm/0.24.0/mla_generation_module_perf.parquet", table)
    aiconfigurator.ingest(tree, ["b300_sxm", "b200_sxm"], "vllm", tmp_path / "out")
    for gpu, expected in (("b300_sxm", [3e-3, 3e-3]), ("b200_sxm", [3e-3, 4e-3])):
        tables = store.load_tables(gpu, root=tmp_path / "out")
        record = tables.provenance("mla_module_decode")
        assert tables.family("mla_module_decode")["latency_s"].to_pylist() == pytest.approx(expected)
        assert [rule["from"] for rule in record["substitutions"]] == ["vllm 0.24.0 of b200_sxm"] * (gpu == "b300_sxm")
        assert all("data/b200_sxm/" in s["path"] or s["use"] == "own slot" for s in record["sources"])


def test_ingest__linear_attention(tree: Path, tmp_path: Path) -> None:
    core = {**GDN, "kernel_source": "chunk_gated_delta_rule"}
    records = [
        {**GDN, "kernel_source": "causal_conv1d_fn", "latency": 1.0},
        {**core, "latency": 2.0},
        {**core, "d_model": 2048, "model_name": "org/wider", "latency": 4.0},  # the kernel does not see the width
        {**core, "phase": "generation", "seq_len": 1, "num_tokens": 2, "latency": 0.5},
    ]
    put(tree, "h100_sxm/linear_attention/vllm/0.24.0/gdn_perf.parquet", rows(*records))
    mixer = {"phase": "generation", "batch_size": 1, "seq_len": 1, "num_tokens": 1, "d_model": 8, "d_conv": 4}
    mixer |= {"nheads": 6, "head_dim": 64, "d_state": 128, "n_groups": 2, "model_name": "m"}
    conv = [{**mixer, "kernel_source": "causal_conv1d_update", "chunk_size": c, "latency": 1.0} for c in (128, 256)]
    put(tree, "h100_sxm/linear_attention/vllm/0.24.0/mamba2_perf.parquet", rows(*conv))
    found = ingest(tree, tmp_path / "out", families=["gdn", "mamba2"])
    heads = {"num_key_heads": 8, "num_value_heads": 16, "key_head_dim": 128, "value_head_dim": 64, "conv_kernel": 4}
    gdn, record = found["gdn"]
    assert gdn == [
        {"phase": phase, "op": op, **heads, "batch_size": 2, "new_tokens": new, "latency_s": pytest.approx(t)}
        for phase, op, new, t in (
            ("decode", "core", 1, 0.5e-3),
            ("prefill", "conv", 16, 1e-3),
            ("prefill", "core", 16, 3e-3),
        )
    ]
    assert record["sources"][0]["model_name"] == ["org/model", "org/wider"]
    (row,) = found["mamba2"][0]
    assert row == {
        "phase": "decode",
        "op": "conv",
        "num_heads": 6,
        "head_dim": 64,
        "state_size": 128,
        "n_groups": 2,
        "conv_kernel": 4,
        "batch_size": 1,
        "new_tokens": 1,
        "latency_s": pytest.approx(1e-3),
    }


def test_ingest__sparse_attention_is_thinned_along_the_cached_length(tree: Path, tmp_path: Path) -> None:
    block = {**MLA, "op_name": "dsa_context_module", "isl": 64, "latency": 1.0}
    records = [{**block, "step": step, "tp_size": tp} for step, tp in ((0, 1), (64, 1), (2048, 1), (2048, 2))]
    records.append({**block, "op_name": "dsa_context_module_skip_indexer", "step": 0, "latency": 0.1})
    put(tree, "h100_sxm/sparse_attention/vllm/0.24.0/dsa_context_module_perf.parquet", rows(*records))
    table, record = ingest(tree, tmp_path / "out", families="dsa_module_prefill")["dsa_module_prefill"]
    assert [(r["context_len"], r["new_tokens"], r["latency_s"]) for r in table] == [(0, 64, 1e-3), (2048, 64, 1e-3)]
    (origin,) = record["sources"]
    assert (origin["rows_in"], origin["rows_used"]) == (5, 3)
    assert "indexer of their own" in origin["rows_chosen"]
    assert "131072" in origin["rows_chosen"]


def test_ingest__families_of_some_engines_only(tree: Path, tmp_path: Path) -> None:
    scale = {"quant_dtype": "fp8", "m": 4, "k": 64, "latency": 7.0}
    for engine, version in (("vllm", "0.24.0"), ("trtllm", "1.3.0rc20")):
        put(tree, f"h100_sxm/quantize/{engine}/{version}/computescale_perf.parquet", rows(scale))
    assert "act_scale" not in ingest(tree, tmp_path / "out")
    written = {w.family: w.path for w in aiconfigurator.ingest(tree, "h100_sxm", "trtllm", tmp_path / "out")}
    assert pq.read_table(written["act_scale"]).to_pylist() == [{"dtype": "fp8", "k": 64, "m": 4, "latency_s": 7e-3}]


def test_ingest__provenance(tree: Path, tmp_path: Path) -> None:
    found = ingest(tree, tmp_path / "out", package_version="9.9", date="2031-02-03")
    for name, (table, record) in found.items():
        assert record["rows"] == len(table)
        assert (record["gpu"], record["engine"], record["engine_version"]) == ("h100_sxm", "vllm", "0.24.0")
        assert (record["family"], record["package_version"], record["date"]) == (name, "9.9", "2031-02-03")
        assert record["license"] == "Apache-2.0"
        assert "NVIDIA" in record["copyright"]
        assert str(tmp_path) not in json.dumps(record)
    prefill = found["attn_prefill"][1]["sources"][0]
    assert prefill["path"] == (
        "aiconfigurator_core/systems/data/h100_sxm/attention/vllm/0.24.0/context_attention_perf.parquet"
    )
    assert prefill["constants"] == {"beam_width": 1, "step": 0, "window_size (absent)": 0}
    custom, nccl = found["comm"][1]["sources"]
    assert (custom["rows_in"], custom["rows_used"]) == (2, 1)
    assert (custom["rows_chosen"], nccl["rows_chosen"]) == ("timed inside a CUDA graph", "all")
    assert "2.9.1" in nccl["use"]


def test_ingest__twice_gives_the_same_and_leaves_no_temporary(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = ingest(tree, out, date="2031-02-03")
    assert ingest(tree, out, date="2031-02-03") == first
    names = {p.name for p in out.rglob("*") if p.is_file()}
    assert names == {"vllm.parquet", "vllm.provenance.json"}


def test_ingest__wheel_and_installed_package_give_the_same(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "aiconfigurator_core-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in tree.rglob("*"):
            if path.is_file():
                archive.write(path, "aiconfigurator_core/" + str(path.relative_to(tree)))
    site = tmp_path / "site"
    site.mkdir()
    tree.rename(site / "aiconfigurator_core")
    (site / "aiconfigurator_core" / "__init__.py").write_text("raise RuntimeError('imported')")
    info = site / "aiconfigurator_core-3.2.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: aiconfigurator-core\nVersion: 3.2.1\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    places: list[str | Path] = [wheel, "aiconfigurator-core", site, site / "aiconfigurator_core" / "systems"]
    found = [ingest(place, tmp_path / f"out{i}") for i, place in enumerate(places)]
    assert [f["gemm"][1]["package_version"] for f in found] == ["1.2.3", "3.2.1", "3.2.1", "3.2.1"]
    for other in found[1:]:
        assert {name: pair[0] for name, pair in other.items()} == {name: pair[0] for name, pair in found[0].items()}
    assert "aiconfigurator_core" not in sys.modules


def test_ingest__what_is_not_there(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MissingTableError, match="b200_sxm"):
        aiconfigurator.ingest(tree, ["b200_sxm"], ["vllm"], out)
    with pytest.raises(UnknownNameError, match="sglang"):
        aiconfigurator.ingest(tree, ["h100_sxm"], ["sglan"], out)
    with pytest.raises(UnknownNameError, match="gemm"):
        aiconfigurator.ingest(tree, ["h100_sxm"], ["vllm"], out, families=["gem"])
    for place in (tmp_path, tmp_path / "nowhere", "no-such-package", "not a name", tree / "systems" / "h100_sxm.yaml"):
        with pytest.raises(MissingTableError, match="pip install"):
            source.open_source(place)
    assert not out.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"m": None}, ["column m", "null"]),
        ({"gemm_dtype": "int3"}, ["column gemm_dtype", "int3", "bfloat16"]),
        ({"latency": 0.0}, ["latency_s", "positive"]),
        ({"latency": float("nan")}, ["latency_s", "positive"]),
        ({"k": 0}, ["column k", "at least 1"]),
        ({"clock": 1}, ["column clock", "different values"]),
    ],
)
def test_ingest__bad_source_rows_are_named(
    tree: Path, tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    good = {**GEMM_KEYS, "latency": 1.0, **({"clock": 0} if "clock" in change else {})}
    put(tree, "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", rows(good, {**good, "n": 1024, **change}))
    with pytest.raises(TableFormatError) as caught:
        ingest(tree, tmp_path / "out", families="gemm")
    for word in words:
        assert word in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_ingest__missing_column_and_broken_file(tree: Path, tmp_path: Path) -> None:
    put(tree, "h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet", rows({**GEMM_KEYS, "latency": 1.0}).drop(["k"]))
    with pytest.raises(TableFormatError, match="column k"):
        ingest(tree, tmp_path / "out", families="gemm")
    (tree / "systems/data/h100_sxm/gemm/vllm/0.24.0/gemm_perf.parquet").write_text("version https://git-lfs")
    with pytest.raises(TableFormatError, match=r"gemm_perf.parquet.*unreadable"):
        ingest(tree, tmp_path / "out", families="gemm")


def test_ingest__unwritable_target(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"vllm.parquet"):
        aiconfigurator.ingest(tree, "h100_sxm", "vllm", tmp_path / "out")


def test_mapping__every_family_maps_onto_its_keys() -> None:
    derived = {"nccl": {"backend"}, "comm": {"backend"}, "gdn": {"op"}, "mamba2": {"op"}}
    for name, columns in mapping.VARIABLE_MAP.items():
        extra = derived.get(name, {"kv_len"} if name.endswith("decode") else set())
        assert set(columns.values()) | extra == set(schema.family("comm" if name == "nccl" else name).keys)
        assert not extra & set(columns.values())
    assert set(mapping.SOURCE_TABLES) == set(mapping.VARIABLE_MAP) - {"nccl"} == set(schema.FAMILIES)


def test_slots__rules_and_findings_name_what_exists() -> None:
    for rule in slots.SUBSTITUTIONS:
        assert rule.mode in ("fill", "lower")
        assert (rule.from_engine, rule.from_version, rule.from_gpu) != (rule.engine, slots.slot(rule.engine, ""), "")
        assert set(rule.only) <= set(schema.family(rule.family).keys)
        assert {rule.engine, rule.from_engine} <= set(slots.SLOTS)
    for finding in slots.FINDINGS:
        assert finding.text.endswith(".")
        for gpu in finding.gpus:
            record = store.load_tables(gpu, finding.engine).provenance(finding.family)
            assert finding.text in record["findings"]


def naive_merge(measured: list[tuple[int, int, str, float]]) -> dict[tuple[int, int], float]:
    """For every key: the median over the runs of a kernel, then the smallest over kernels."""
    return {
        key: min(
            statistics.median(t for *k, c, t in measured if (tuple(k), c) == (key, kernel))
            for kernel in {c for *k, c, _ in measured if tuple(k) == key}
        )
        for key in sorted({(n, m) for n, m, _, _ in measured})
    }


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.sampled_from("ab"), st.sampled_from([0.25, 0.5, 1.0, 3.0])),
        max_size=12,
    )
)
def test_merge_repeated__matches_definition(measured: list[tuple[int, int, str, float]]) -> None:
    n, m, kernels, latency = (np.asarray([row[i] for row in measured]) for i in range(4))
    columns = {"dtype": np.full(n.size, "bf16"), "n": n.astype(int), "k": np.ones(n.size, int), "m": m.astype(int)}
    table, record = merge.merge_repeated("gemm", columns, latency.astype(float), kernels.astype(str))
    found = {(r["n"], r["m"]): r["latency_s"] for r in table.to_pylist()}
    expected = naive_merge(measured)
    assert list(found.items()) == list(expected.items())
    assert record["rows_merged"] == len(measured) - len(expected)


def naive_beaten(curves: dict[int, dict[int, float]]) -> tuple[int, int, int, float]:
    """Rows in curves of two or more, those beaten by a tenth and twofold, and the largest ratio."""
    ratios = [
        time / min(t for other, t in curve.items() if other >= size)
        for curve in curves.values()
        for size, time in curve.items()
    ]
    rows_of_curves = sum(len(curve) for curve in curves.values() if len(curve) > 1)
    beaten = [sum(r > limit for r in ratios) for limit in (1.1, 2.0)]
    return rows_of_curves, *beaten, max(ratios, default=1.0)


@given(
    st.dictionaries(
        st.integers(1, 3), st.dictionaries(st.integers(1, 9), st.sampled_from([1.0, 1.05, 2.0, 3.0, 5.0]), min_size=1)
    )
)
def test_beaten_rows__matches_definition(curves: dict[int, dict[int, float]]) -> None:
    keys = sorted((n, m) for n, curve in curves.items() for m in curve)
    table = pa.table(
        {
            "dtype": pa.array(["bf16"] * len(keys), pa.string()),
            "n": pa.array([n for n, _ in keys], pa.int32()),
            "k": pa.array([1] * len(keys), pa.int32()),
            "m": pa.array([m for _, m in keys], pa.int32()),
            "latency_s": pa.array([curves[n][m] for n, m in keys], pa.float64()),
        }
    )
    record = quality.beaten_rows(schema.validate(table, "gemm", "test"), "gemm")
    in_curves, tenth, twofold, largest = naive_beaten(curves)
    assert record["axis"] == "m"
    assert record["rows"] == in_curves
    assert record["slower_than_a_larger_shape_by_a_tenth"] == tenth
    assert record["slower_than_a_larger_shape_twofold"] == twofold
    assert record.get("largest_ratio", 1.0) == largest
    if largest > 1.0:
        at = record["largest_at"]
        curve = curves[at["n"]]
        assert curve[at["m"]] == largest * min(t for m, t in curve.items() if m >= at["m"])


# --- the committed files against the package itself, where it is at hand

ATTENTION_KEYS = "attn_dtype kv_cache_dtype num_heads num_key_value_heads head_dim window_size batch_size"
MODULE_KEYS = "gemm_type mla_dtype kv_cache_dtype architecture num_heads batch_size"
THEIRS = {
    "gemm": "gemm_dtype n k m",
    "attn_prefill": f"{ATTENTION_KEYS} isl",
    "attn_decode": f"{ATTENTION_KEYS} isl+step",
    "moe": "moe_dtype num_experts topk hidden_size inter_size moe_tp_size moe_ep_size distribution num_tokens",
    "mla_module_prefill": f"{MODULE_KEYS} isl",
    "mla_module_decode": f"{MODULE_KEYS} isl+step",
    "mla_prefill": "mla_dtype kv_cache_dtype num_heads batch_size isl",
    "mla_decode": "mla_dtype kv_cache_dtype num_heads batch_size isl+step",
    "mla_bmm": "op_name bmm_dtype num_heads num_tokens",
    "dsa_module_prefill": f"{MODULE_KEYS} step isl",
    "dsa_module_decode": f"{MODULE_KEYS} isl+step",
    "gdn": "phase op num_k_heads num_v_heads head_k_dim head_v_dim d_conv batch_size seq_len",
    "mamba2": "phase op nheads head_dim d_state n_groups d_conv batch_size seq_len",
    "act_scale": "quant_dtype k m",
    "comm": "op_name backend dtype num_gpus message_size",
}
THEIR_NAME = {
    "bf16": "bfloat16",
    "fp16": "half",
    "all_to_all": "alltoall",
    "pre": "mla_gen_pre",
    "post": "mla_gen_post",
    "prefill": "context",
    "decode": "generation",
}


def package_folder() -> Path:
    """Return the folder that holds ``aiconfigurator_core``, or skip."""
    given_folder = os.environ.get("MFUROOF_AICONFIGURATOR")
    if given_folder:
        path = Path(given_folder)
        return path.parent if path.name == "aiconfigurator_core" else path
    spec = importlib.util.find_spec("aiconfigurator_core")
    if spec is None or spec.origin is None:
        pytest.skip("aiconfigurator-core is not installed and MFUROOF_AICONFIGURATOR names no folder")
    return Path(spec.origin).parents[1]


def matching(file: pa.Table, name: str, row: Mapping[str, Any]) -> np.ndarray:
    """Say which rows of a source table measure the kernel of one of our rows."""
    mask = np.ones(file.num_rows, dtype=bool)
    for column, (ours, value) in zip(THEIRS[name].split(), list(row.items())[:-1], strict=True):
        if column == "backend" or (column == "window_size" and column not in file.column_names):
            continue  # chosen by the file; absent from older slots, where it was always 0
        if column == "op":
            convolves = np.asarray([k.startswith("causal_conv1d") for k in file["kernel_source"].to_pylist()])
            mask &= convolves == (value == "conv")
            continue
        if name == "comm" and ours == "dtype":
            column = "nccl_dtype" if "nccl_dtype" in file.column_names else "allreduce_dtype"
        theirs = sum(file[part].to_numpy() for part in column.split("+")) if "+" in column else file[column]
        mask &= np.asarray(theirs) == THEIR_NAME.get(value, value)
    return mask


def naive_latency_s(files: list[pa.Table], name: str, row: Mapping[str, Any]) -> float:
    """Look up a row of ours in the source tables: median over the runs of a kernel, lowest over kernels and files."""
    best = float("inf")
    for file in files:
        if name == "comm" and ("nccl_dtype" in file.column_names) != (row["backend"] == "nccl"):
            continue
        mask = matching(file, name, row)
        runs: dict[str, list[float]] = {}
        kernels, ops = np.asarray(file["kernel_source"])[mask], np.asarray(file["op_name"])[mask]
        for kernel, op, latency in zip(kernels, ops, file["latency"].to_numpy()[mask], strict=True):
            if not kernel.endswith("_eager") and not op.endswith("_skip_indexer"):
                runs.setdefault(kernel, []).append(float(latency))
        best = min([best, *(statistics.median(times) for times in runs.values())])
    return best * 1e-3


@pytest.mark.parametrize(("gpu", "engine"), [(g, e) for g, engines in store.available().items() for e in engines])
def test_committed__rows_are_those_of_the_package(gpu: str, engine: str) -> None:
    root = package_folder()
    tables = store.load_tables(gpu, engine)
    draw = random.Random(gpu)
    for name in tables.families:
        record = tables.provenance(name)
        contents = [(root / s["path"]).read_bytes() for s in record["sources"]]
        checksums = [hashlib.sha256(content).hexdigest() for content in contents]
        if checksums != [s["sha256"] for s in record["sources"]]:
            pytest.skip(f"the package at hand is not version {record['package_version']}")
        files = [pq.read_table(pa.BufferReader(content)) for content in contents]
        siblings = [s["use"].startswith("substitution") for s in record["sources"]]
        replaced = [rule["rows"].items() for rule in record["substitutions"]]
        table = tables.family(name)
        for i in draw.sample(range(table.num_rows), 4):
            row = table.slice(i, 1).to_pylist()[0]
            open_to_siblings = any(rule <= row.items() for rule in replaced)
            allowed = [f for f, sibling in zip(files, siblings, strict=True) if open_to_siblings or not sibling]
            assert row["latency_s"] == pytest.approx(naive_latency_s(allowed, name, row), rel=1e-12), (name, row)
