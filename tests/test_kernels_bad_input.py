"""Bad input of the kernels cost: typed errors that say what was sought and what exists, or the result asked for."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import numpy.testing as npt
import pytest
from step_strategies import LLAMA_8B, LLAMA_70B, evaluator

import mfuroof as mr
from mfuroof.core.sources import Source
from mfuroof.errors import ConfigError, InputError, MfuroofError, MissingTableError, TableFormatError, UnknownNameError
from mfuroof.tables.store import bench_data_root, load_tables

STEPS = mr.StepBatch.uniform([4, 4, 0, 4], 500, [0, 2, 2, 2], 300, [0, 0, 50, 50])
RAGGED = mr.StepBatch.ragged(
    decode=[[500] * 4, [500] * 4, [], [500] * 4],
    prefill=[[], [(0, 300)] * 2, [(50, 300)] * 2, [(50, 300)] * 2],
)


# ------------------------------------------------------------------ names and degrees


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        ({"model": "meta-llama/Llama-3.1-9B"}, "Llama-3.1-8B"),
        ({"hardware": "h100_sxn"}, "h100_sxm"),
        ({"engine": "vlm"}, "vllm"),
        ({"cost": "kernel"}, "kernels"),
    ],
)
def test_unknown_names_come_with_the_nearest(arguments, nearest):
    with pytest.raises(UnknownNameError) as caught:
        mr.StepEvaluator(**{"model": LLAMA_8B, "hardware": "h100_sxm"} | arguments)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("degree", ["tp_size", "pp_size", "ep_size", "dp_size"])
@pytest.mark.parametrize("value", [0, -2, 1.5, math.nan, math.inf, "2", None, True, [2]])
def test_degrees_are_whole_and_positive(degree, value):
    with pytest.raises(InputError, match=f"{degree}: found .*, expected an integer of at least 1"):
        mr.StepEvaluator(LLAMA_8B, "h100_sxm", **{degree: value})


@pytest.mark.parametrize("tp", [3, 7, 64])
def test_ranks_must_divide_the_heads(tp):
    with pytest.raises(InputError, match=rf"tp_size: found {tp}, expected a divisor of the 32 attention heads"):
        mr.StepEvaluator(LLAMA_8B, "h100_sxm", tp_size=tp)


@pytest.mark.parametrize(
    "arguments",
    [
        {"model": 5},
        {"hardware": 5},
        {"hardware": None},
        {"engine": 5},
        {"engine": None},
        {"cost": None},
        {"tables": 5},
        {"tables": "nowhere"},
        {"params": {"monotone": False}},
        {"params": "aiconfigurator"},
        {"weight_dtype": "fp9"},
        {"kv_dtype": "int3"},
        {"kv_dtype": 8},
    ],
)
def test_wrong_types_and_values_are_our_errors(arguments):
    with pytest.raises(MfuroofError):
        mr.StepEvaluator(**{"model": LLAMA_8B, "hardware": "h100_sxm"} | arguments)


@pytest.mark.parametrize("batch", [5, None, [1, 2], {"decode_batch": 1}, np.arange(3)])
def test_a_batch_is_a_step_batch(batch):
    for price in (evaluator().step_time, evaluator().evaluate):
        with pytest.raises(InputError, match=r"batch: found .*, expected a StepBatch"):
            price(batch)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", None, math.nan, True])
def test_threads_are_whole_and_positive(threads):
    for price in (evaluator().step_time, evaluator().evaluate):
        with pytest.raises(InputError, match="threads"):
            price(STEPS, threads)


@pytest.mark.parametrize(
    "field",
    [
        {"monotone": "yes"},
        {"missing": "zero"},
        {"elementwise_bandwidth_efficiency": 0.0},
        {"elementwise_bandwidth_efficiency": 1.1},
        {"elementwise_launch_s": -1e-6},
        {"elementwise_launch_s": math.nan},
        {"gemm_neighbours": -1},
        {"gemm_neighbours": 2.5},
        {"decode_kv_spread": 0.7},
        {"prefill_blend": "cubic"},
    ],
)
def test_params_are_checked(field):
    with pytest.raises(InputError, match=next(iter(field))):
        mr.CostParams(**field)


# ------------------------------------------------------------------ tables that are not there


def copy_tables(folder, *families, gpu="h100_sxm", engine="vllm"):
    """A database of one GPU with some of its families."""
    for family in families:
        (folder / gpu / family).mkdir(parents=True)
        for file in (bench_data_root() / gpu / family).glob(f"{engine}.*"):
            shutil.copy(file, folder / gpu / family)
    return folder / gpu


def bind(tables, tp=1, **params):
    return mr.StepEvaluator(LLAMA_70B, "h100_sxm", tp_size=tp, tables=tables, params=mr.CostParams(**params))


FAMILIES = ("gemm", "attn_prefill", "attn_decode", "comm")
SOUGHT = {
    "gemm": "GEMM",
    "attn_prefill": "attn_prefill with 16 heads",
    "attn_decode": "attn_decode with 16 heads",
    "comm": "all_reduce over 4 GPUs",
}


@pytest.mark.parametrize("absent", FAMILIES)
def test_missing_family(tmp_path, absent):
    tables = copy_tables(tmp_path, *(f for f in FAMILIES if f != absent))
    with pytest.raises(MissingTableError) as caught:
        bind(tables, tp=4)
    for part in (SOUGHT[absent], "h100_sxm", "vllm", "nothing of this family", 'missing="roofline"', '"nan"'):
        assert part in str(caught.value)

    full = evaluator_70b()
    rough, blank = bind(tables, tp=4, missing="roofline"), bind(tables, tp=4, missing="nan")
    for batch in (STEPS, RAGGED):
        exact, estimate, unknown = full.evaluate(batch), rough.evaluate(batch), blank.evaluate(batch)
        used = {"attn_prefill": exact.attention_prefill_s > 0, "attn_decode": exact.attention_decode_s > 0}
        concerned = used.get(absent, np.full(4, True))
        assert np.isfinite(estimate.step_time_s).all()
        assert (estimate.source[concerned] == Source.ROOFLINE).all()
        assert (estimate.step_time_s[concerned] < exact.step_time_s[concerned]).all()
        npt.assert_array_equal(np.isnan(unknown.step_time_s), concerned)
        npt.assert_array_equal(unknown.source == Source.MISSING, concerned)
        npt.assert_allclose(unknown.step_time_s[~concerned], exact.step_time_s[~concerned], rtol=1e-12)
        assert "missing" in repr(unknown.__class__(*_first(unknown, concerned)))


def _first(result, where):
    i = int(np.flatnonzero(where)[0])
    parts = np.stack([v[i : i + 1] for v in result.op_time_s.values()])
    return result.step_time_s[i : i + 1], result.components, parts, result.batch.slice(i, i + 1), result._bound


def evaluator_70b():
    return mr.StepEvaluator(LLAMA_70B, "h100_sxm", tp_size=4)


def test_unknown_times_reach_every_form_alike(tmp_path):
    """NaN is no number to take a maximum of: mixed lengths and cached prefixes are as unknown as the rest."""
    blank = bind(copy_tables(tmp_path, "gemm", "comm"), missing="nan")
    batch = mr.StepBatch.ragged(decode=[[5, 900], []], prefill=[[], [(900, 5), (0, 70)]])
    assert np.isnan(blank.step_time(batch)).all()
    assert np.isnan(blank.step_time(mr.StepBatch.uniform([3, 0], 900, [0, 3], 50, 900))).all()
    assert math.isnan(blank.step_time_scalar(decode_batch=1, decode_context=5))
    assert blank.step_time_scalar() == 0.0


def test_missing_dtype_names_what_exists():
    with pytest.raises(MissingTableError) as caught:
        mr.StepEvaluator(LLAMA_8B, "a100_sxm", params=mr.CostParams(transfer=False), kv_dtype="fp8")
    for part in ("32 heads, 8 KV heads, head_dim 128", "fp8 KV on a100_sxm", "there is", "bf16"):
        assert part in str(caught.value)


def test_gpu_without_tables_names_those_that_have_them():
    with pytest.raises((UnknownNameError, MissingTableError)) as caught:
        mr.StepEvaluator(LLAMA_8B, "tpu_v6e")
    assert "tpu_v6e" in str(caught.value)


def test_damaged_table_is_named(tmp_path):
    tables = copy_tables(tmp_path, *FAMILIES)
    path = tables / "attn_decode" / "vllm.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TableFormatError, match=r"attn_decode.*vllm\.parquet"):
        bind(tables)


def test_opened_tables_are_taken_as_they_are():
    tables = load_tables("h100_sxm")
    again = mr.StepEvaluator(LLAMA_8B, "h100_sxm", tables=tables)
    npt.assert_array_equal(again.step_time(STEPS), evaluator().step_time(STEPS))


def test_layers_that_cannot_be_priced_are_named():
    model = mr.get_model("moonshotai/Kimi-K3")
    layers = tuple(
        replace(s, attention=replace(s.attention, linear=replace(s.attention.linear, variant="rwkv")))
        if s.attention.linear
        else s
        for s in model.layers
    )
    with pytest.raises(ConfigError, match=r"linear attention.*rwkv.*gdn"):
        mr.StepEvaluator(replace(model, layers=layers), "h100_sxm", tp_size=8)


def test_compressed_attention_needs_a_measured_relative():
    with pytest.raises(MissingTableError, match="stands in for compressed attention, on l40s"):
        mr.StepEvaluator("deepseek-ai/DeepSeek-V4-Flash", "l40s", tp_size=8)
    params = mr.CostParams(missing="roofline")
    ev = mr.StepEvaluator("deepseek-ai/DeepSeek-V4-Flash", "l40s", tp_size=8, params=params)
    assert np.isfinite(ev.step_time(STEPS)).all()
