"""Presets side by side, and the commands."""

from __future__ import annotations

import json
import warnings

import pytest
from typer.testing import CliRunner

from mfuroof import get_model, kv_capacity
from mfuroof.cli.quant import app
from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.quant import PRESETS, compare
from mfuroof.quant.comparison import COLUMNS

MOE = "Qwen/Qwen3-30B-A3B"


@pytest.fixture(scope="module")
def table():
    return compare(MOE, "h100_sxm", serving=False)


def test_one_row_per_preset(table):
    assert [r["name"] for r in table.rows] == list(PRESETS) and len(table) == len(PRESETS)
    assert all(set(r) == set(COLUMNS) for r in table.rows)
    assert table.to_arrow().column_names == list(COLUMNS) and "dynamic-fp8" in repr(table)


def test_each_field_moves_its_own_figures(table):
    rows = {r["name"]: r for r in table.rows}
    base, kv, fp8, moe = (rows[n] for n in ("default", "kv-cache-fp8", "dynamic-fp8", "aggressive-moe"))
    assert kv["weight_bytes"] == base["weight_bytes"] and kv["kv_bytes_per_token"] == base["kv_bytes_per_token"] / 2
    assert kv["kv_capacity_tokens"] > 1.9 * base["kv_capacity_tokens"]
    assert fp8["weight_bytes"] < 0.55 * base["weight_bytes"] and fp8["speedup"] > 1.2
    assert moe["gemm_dtype"] == "bf16" and moe["moe_dtype"] == "w4a8_int4_fp8"
    assert moe["weight_bytes"] < fp8["weight_bytes"]
    assert base["speedup"] == 1.0 and rows["bf16-stable"]["decode_step_s"] == kv["decode_step_s"]


def test_memory_is_that_of_capacity(table):
    room = kv_capacity(get_model(MOE).with_precision(kv_dtype="fp8"), "h100_sxm", seq_len=1280)
    row = table.rows[1]
    assert row["kv_capacity_tokens"] == int(room.kv_capacity_tokens)
    assert row["max_concurrency"] == int(room.max_sequences)


def test_serving_figures():
    two = compare(MOE, "h100_sxm", ["default", "dynamic-fp8"], concurrency=16)
    for row in two.rows:
        assert row["ttft_s"] > row["prefill_step_s"] * 0.9 and row["tpot_s"] > 0
        assert row["output_tokens_per_s_per_gpu"] > 0
    assert two.rows[1]["tpot_s"] < two.rows[0]["tpot_s"]


def test_what_does_not_apply_is_noted():
    dense = compare("Qwen/Qwen3-32B-FP8", "h100_sxm", ["dynamic-fp8"], serving=False)
    said = " ".join(dense.notes["dynamic-fp8"])
    assert "gemm_dtype = fp8 is dropped" in said and "moe_dtype = fp8 is dropped" in said
    ampere = compare("meta-llama/Llama-3.1-8B", "a100_sxm", [{"gemm_dtype": "fp8"}], serving=False)
    assert any("a100_sxm has no fp8" in t for t in ampere.notes["gemm fp8"])


def test_what_the_engine_cannot_do_is_marked_with_the_reason(table):
    rows = {r["name"]: r for r in table.rows}
    assert [name for name, r in rows.items() if r["launchable"]] == list(PRESETS)[:4]
    experts = rows["aggressive-moe"]
    assert experts["engines"] == [] and "w4afp8 is not supported" in experts["reason"]
    assert experts["decode_step_s"] is not None  # what a checkpoint quantised beforehand would do
    text = repr(table)
    assert "aggressive-moe*" in text and "cannot be launched so (with no engine): moe_dtype = w4afp8" in text
    assert rows["dynamic-fp8"]["engines"] == ["vllm", "sglang"] and rows["default"]["reason"] == ""
    other = compare(MOE, "h100_sxm", ["dynamic-fp8"], serving=False, engine="trtllm")
    assert not other.rows[0]["launchable"] and "possible with vllm, sglang" in repr(other)


def test_old_versions_cannot_do_what_new_ones_can():
    fields = {"kvcache_dtype": "int4"}
    for version, able in (("0.26", False), ("0.27", True)):
        row = compare(MOE, "h100_sxm", fields, serving=False, engine_version=version).rows[0]
        assert row["launchable"] is able and ("vllm" in row["engines"]) is able


def test_what_the_device_rules_out_has_no_figures():
    out = compare("meta-llama/Llama-3.1-8B", "h100_sxm", ["default", {"kvcache_dtype": "nvfp4"}], serving=False)
    default, nvfp4 = out.rows
    assert default["launchable"] and not nvfp4["launchable"] and nvfp4["decode_step_s"] is None
    assert "h100_sxm has none" in nvfp4["reason"] and nvfp4["engines"] == []
    blackwell = compare("meta-llama/Llama-3.1-8B", "b200_sxm", {"kvcache_dtype": "nvfp4"}, serving=False)
    assert blackwell.rows[0]["launchable"] and blackwell.rows[0]["decode_step_s"] > 0


def test_engine_and_workload_are_named(table):
    assert table.title() == f"{MOE} on h100_sxm, vLLM 0.33.0, kernels"
    assert dict(table.workload) == {"batch_size": 32, "input_len": 1024, "output_len": 256, "concurrency": 32}
    assert "32 at context 1152" in table.load() and table.load() in repr(table)
    ranks = compare(MOE, "h100_sxm", "default", serving=False, engine="sglang", tp_size=2, cost="constant_mfu")
    assert ranks.title().endswith("SGLang 0.5.23, constant_mfu, tp 2")


def test_what_does_not_fit_or_has_no_table_leaves_the_others():
    with warnings.catch_warnings():
        warnings.simplefilter("error", MfuroofWarning)
        large = compare("meta-llama/Llama-3.1-70B", "h100_sxm", ["default", "dynamic-fp8"])
    assert [r["fits"] for r in large.rows] == [False, True]
    assert large.rows[0]["ttft_s"] is None and large.rows[1]["ttft_s"] > 0


def test_same_names_are_numbered():
    twice = compare("meta-llama/Llama-3.1-8B", "h100_sxm", ["default", "default"], serving=False)
    assert [r["name"] for r in twice.rows] == ["default", "default (2)"]


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"input_len": 1.5}, {"output_len": True}, {"concurrency": -1}])
def test_bad_sizes(bad):
    with pytest.raises(InputError):
        compare("meta-llama/Llama-3.1-8B", "h100_sxm", **bad)


def test_unknown_names():
    with pytest.raises(UnknownNameError):
        compare("meta-llama/Llama-3.1-8B", "h100_sxm", ["slow"])


# ---------------------------------------------------------------- commands


def run(*words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        return CliRunner().invoke(app, list(words))


def test_args_command():
    done = run("args", "vllm", "--preset", "dynamic-fp8", "--", "--max-model-len", "8192")
    assert done.exit_code == 0
    line = "--quantization fp8_per_tensor --kv-cache-dtype fp8_e4m3 --max-model-len 8192"
    assert done.stdout.splitlines()[0] == line
    several = json.loads(run("args", "vllm", "--preset", "default", "--preset", "kv-cache-fp8", "--json").stdout)
    assert [m["shell"] for m in several] == ["", "--kv-cache-dtype fp8_e4m3"]
    yaml = run("args", "trtllm", "--gemm-dtype", "bfloat16").stdout
    assert yaml.splitlines()[:2] == ["--config llm_options.yaml", "# llm_options.yaml: dtype: bfloat16"]
    assert isinstance(run("args", "trtllm", "--gemm-dtype", "fp8", "--strict").exception, InputError)


def test_detect_command():
    assert "quantised (fp8" in run("detect", "Qwen/Qwen3-32B-FP8").stdout
    assert json.loads(run("detect", "Qwen/Qwen3-8B", "--json").stdout)["quantised"] is False


def test_compare_command():
    words = ("compare", "meta-llama/Llama-3.1-8B", "--gpu", "h100_sxm", "--preset", "default")
    assert "gain" in run(*words).stdout
    record = json.loads(run(*words, "--kvcache-dtype", "fp8", "--json").stdout)
    assert record["workload"]["batch_size"] == 32 and record["engine"].startswith("vLLM")
    assert record["rows"][0]["kv_dtype"] == "fp8" and record["rows"][0]["name"] == "default+kvcache fp8"


def test_compare_command_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    lines = run("compare", MOE, "--gpu", "h100_sxm", "--preset", "aggressive-moe", "--concurrency", "8").stdout
    table = [line for line in lines.splitlines() if line.startswith(("configuration", "aggressive-moe*"))]
    assert len(table) == 4 and all(len(line.rstrip()) <= 60 for line in table)
