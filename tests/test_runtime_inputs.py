"""The runtime precision as an input: the evaluator, tables and commands mean the same, and none ignores a field."""

from __future__ import annotations

import json
import warnings
from functools import cache
from typing import Any

import pyarrow as pa
import pytest

import mfuroof as mr
from mfuroof.cli.main import main
from mfuroof.errors import InputError, MfuroofWarning, Problem, UnknownNameError
from mfuroof.precision import PRESETS, runtime_of
from mfuroof.precision.runtime import ALLOWED, RuntimePrecision

MOE, DENSE, QUANTISED = "Qwen/Qwen3-30B-A3B", "Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B-FP8"
GPU = "h100_sxm"
BATCH = mr.StepBatch.uniform(decode_batch=[64, 0], decode_context=4000, prefill_batch=[0, 1], prefill_new_tokens=2000)

# field, value, other fields it needs: each moves a step of a sparse model under every cost, or says why it does not
FIELDS = [
    ("gemm_dtype", "fp8", {}),
    ("kvcache_dtype", "fp8_e4m3", {}),
    ("attention_dtype", "fp8", {"kvcache_dtype": "fp8_e4m3"}),
    ("moe_dtype", "fp8", {}),
]


def seconds(model: str, cost: str, engine: str, fields: dict[str, str]) -> tuple[list[float], list[int], str]:
    """Return step times, sources, and what was warned of."""
    return seconds_of(model, cost, engine, tuple(fields.items()))


@cache
def seconds_of(model: str, cost: str, engine: str, fields: tuple[tuple[str, str], ...]) -> Any:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MfuroofWarning)
        evaluator = mr.StepEvaluator(model, GPU, cost=cost, engine=engine, runtime=dict(fields))
    result = evaluator.evaluate(BATCH)
    return result.step_time_s.tolist(), result.source.tolist(), " ".join(str(w.message) for w in caught)


@pytest.mark.parametrize("cost", ["kernels", "constant_mfu", pytest.param("mfu_table", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [MOE, DENSE, QUANTISED])
@pytest.mark.parametrize(("field", "value", "beside"), FIELDS)
def test_the_evaluator_prices_a_field_or_warns(field, value, beside, model, cost):
    engine = "sglang" if cost == "kernels" else "vllm"  # SGLang's FP8 attention was measured
    before = seconds(model, cost, engine, beside)
    after = seconds(model, cost, engine, {**beside, field: value})
    assert after[0] != before[0] or f"{field} = {value}" in after[2]


def test_attention_that_was_not_measured_is_marked_as_substituted():
    cache = {"kvcache_dtype": "fp8_e4m3"}
    _, before, _ = seconds(MOE, "kernels", "vllm", cache)
    _, after, _ = seconds(MOE, "kernels", "vllm", {**cache, "attention_dtype": "fp8"})
    assert min(after) >= mr.Source.SUBSTITUTED > max(before)


@pytest.mark.parametrize("cost", ["kernels", "constant_mfu"])
def test_latent_attention_says_that_it_has_no_fp8_arithmetic(cost):
    model = mr.get_model("deepseek-ai/DeepSeek-V3")
    said = RuntimePrecision(kvcache_dtype="fp8", attention_dtype="fp8").overrides(model, cost).warnings
    assert any(text.startswith("attention_dtype = fp8: ") for text in said)


def test_a_checkpoint_said_to_be_16_bit_can_be_quantised_at_launch():
    evaluator = mr.StepEvaluator(DENSE, GPU, weight_dtype="bf16", runtime={"gemm_dtype": "fp8"})
    assert evaluator.model.module_dtype("qkv") == "fp8"
    again = mr.StepEvaluator(QUANTISED, GPU, weight_dtype="bf16", runtime={"gemm_dtype": "fp8"})
    assert again.model.module_dtype("qkv") == "fp8"
    with pytest.warns(MfuroofWarning, match=r"gemm_dtype = bfloat16 is dropped: the checkpoint is quantised"):
        mr.StepEvaluator(DENSE, GPU, weight_dtype="fp8", runtime={"gemm_dtype": "bfloat16"})


def test_a_name_is_no_precision_but_the_error_says_where_names_are():
    with pytest.raises(InputError, match=r"'dynamic-fp8'.*mfuroof\.quant\.PRESETS"):
        mr.StepEvaluator(DENSE, GPU, runtime="dynamic-fp8")


def test_errors_of_many_values_stay_short():
    many = InputError(Problem(f"row {i}", str(i), "nothing") for i in range(1000))
    assert len(many.problems) == 1000
    assert len(str(many).splitlines()) == 13
    assert str(many).endswith("and 988 more problems")
    alike = InputError(Problem("tp_size", str(i), "1 or 2", "Take 1.") for i in range(1000))
    assert str(alike) == "tp_size: found 0, 1, 2, 3, 4 and 995 more, expected 1 or 2. Take 1."


# ---------------------------------------------------------------- options and columns


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_and_fields_over_it(name):
    assert runtime_of(name).precision == PRESETS[name]
    over = runtime_of(name, kvcache_dtype="auto", gemm_dtype="int8").precision
    assert over == PRESETS[name].replace(kvcache_dtype="auto", gemm_dtype="int8")


@pytest.mark.parametrize("nothing", [(), (None,), ("", " ", None, "", "")])
def test_blanks_ask_for_nothing(nothing):
    assert runtime_of(*nothing) is None


def test_one_cache_has_one_dtype():
    assert runtime_of("kv-cache-fp8", kv_dtype="fp8").precision.kvcache_dtype == "fp8_e4m3"
    assert runtime_of("default", kv_dtype="bf16") is not None
    for wrong in ("bf16", "fp8_e5m2"):
        with pytest.raises(InputError, match="kv_dtype"):
            runtime_of("kv-cache-fp8", kv_dtype=wrong)
    with pytest.raises(UnknownNameError):
        runtime_of("kv-cache-fp9")


# ---------------------------------------------------------------- tables

SHAPES = {
    "steps": {"decode_batch": 64, "decode_context": 4000},
    "serving": {"input_len": 512, "output_len": 64, "concurrency": 16},
}
PREDICT = {"steps": (mr.predict_steps, "step_time_s"), "serving": (mr.predict_serving, "tpot_s")}


def table(kind: str, rows: list[dict[str, str]], **more: str) -> pa.Table:
    names = ("model", "runtime", "kv_dtype", *ALLOWED)
    base = {"model": MOE, "gpu": GPU, **SHAPES[kind], **more}
    return pa.Table.from_pylist([{**dict.fromkeys(names), **base, **row} for row in rows])


@pytest.mark.parametrize("kind", PREDICT)
def test_tables_take_presets_and_fields(kind):
    predict, figure = PREDICT[kind]
    preset = PRESETS["dynamic-fp8"].to_dict()
    rows = [{}, {"runtime": "default"}, {"runtime": "dynamic-fp8"}, preset, {**preset, "runtime": "bf16-stable"}]
    rows += [{"runtime": "dynamic-fp8", "gemm_dtype": "auto"}, {field: preset[field] for field in ("gemm_dtype",)}]
    found = predict(table(kind, rows)).to_pylist()
    plain, default, named, spelt, over, experts, linear = (row[figure] for row in found)
    assert plain == default
    assert named == spelt == over
    assert len({named, experts, linear, plain}) == 4
    assert max(named, experts, linear) < plain
    assert [row["error"] for row in found] == [None] * len(rows)


@pytest.mark.parametrize("kind", ["steps", pytest.param("serving", marks=pytest.mark.slow)])
@pytest.mark.parametrize("model", [MOE, DENSE, QUANTISED])
def test_tables_price_a_field_or_note_it(kind, model):
    predict, figure = PREDICT[kind]
    rows = [{**beside, **extra} for field, value, beside in FIELDS for extra in ({}, {field: value})]
    found = predict(table(kind, rows, engine="sglang", model=model)).to_pylist()
    for (field, value, _), before, after in zip(FIELDS, found[::2], found[1::2], strict=True):
        noted = f"{field} = {value}" in (after["note"] or "")
        # SGLang's FP8 attention was measured for prompts only: steps without them say so by their source
        marked = field == "attention_dtype" and after["source"] != before["source"]
        assert after[figure] != before[figure] or noted or marked
        assert after["error"] is None


@pytest.mark.parametrize("kind", PREDICT)
def test_wrong_precisions_are_errors_of_their_rows(kind):
    predict, figure = PREDICT[kind]
    wrong = [
        ({"runtime": "dynamic-fp9"}, "dynamic-fp8"),
        ({"gemm_dtype": "fp9"}, "gemm_dtype"),
        ({"runtime": "kv-cache-fp8", "kv_dtype": "bf16"}, "kv_dtype"),
        ({"kvcache_dtype": "nan"}, "kvcache_dtype"),
    ]
    *bad, good = predict(table(kind, [*(row for row, _ in wrong), {"runtime": "dynamic-fp8"}])).to_pylist()
    for row, (_, says) in zip(bad, wrong, strict=True):
        assert row[figure] is None
        assert says in row["error"]
    assert good[figure] > 0


# ---------------------------------------------------------------- commands

STEP = ["step", MOE, "--gpu", GPU, "--decode-batch", "64", "--decode-context", "4000"]


def run(capsys, *arguments):
    assert main(list(arguments)) == 0
    out, err = capsys.readouterr()
    return out, err


def test_step_takes_a_preset_and_fields(capsys):
    def time(*options):
        return json.loads(run(capsys, *STEP, *options, "--json")[0])

    fp8 = time("--precision", "dynamic-fp8")
    assert fp8["runtime"] == {"name": "dynamic-fp8", **PRESETS["dynamic-fp8"].to_dict()}
    evaluator = mr.StepEvaluator(MOE, GPU, runtime=PRESETS["dynamic-fp8"])
    assert fp8["step_time_s"] == evaluator.step_time(BATCH)[0]
    over = time("--precision", "dynamic-fp8", "--gemm-dtype", "auto", "--moe-dtype", "auto")
    cache = time("--kvcache-dtype", "fp8_e4m3", "--attention-dtype", "fp8")
    assert over["step_time_s"] == cache["step_time_s"] < time()["step_time_s"]
    assert time()["runtime"] is None
    assert "launched with kv-cache-fp8" in run(capsys, *STEP, "--precision", "kv-cache-fp8")[0]


@pytest.mark.parametrize(("field", "value", "beside"), FIELDS)
def test_step_warns_of_what_does_not_apply(capsys, field, value, beside):
    options = [w for name, v in {**beside, field: value}.items() for w in (f"--{name.replace('_', '-')}", v)]
    out, err = run(capsys, "step", "deepseek-ai/DeepSeek-V3", "--gpu", "h200_sxm", "--tp", "8", "--decode-batch", "1",
                   *options)  # fmt: skip
    assert out.startswith("deepseek-ai/DeepSeek-V3 on h200_sxm")
    if field != "kvcache_dtype":
        assert f"{field} = {value}" in err
        assert err.startswith("mfuroof: warning: ")


def test_kv_capacity_takes_a_preset_and_fields(capsys):
    def tokens(*options):
        return json.loads(run(capsys, "kv", MOE, "--gpu", GPU, *options, "--json")[0])[0]["kv_capacity_tokens"]

    plain, cache, all_fp8 = tokens(), tokens("--precision", "kv-cache-fp8"), tokens("--precision", "dynamic-fp8")
    assert cache == pytest.approx(2 * plain, rel=1e-3)
    assert all_fp8 > 3 * cache
    assert tokens("--gemm-dtype", "fp8", "--moe-dtype", "bfloat16") < tokens("--gemm-dtype", "fp8")
    assert tokens("--kvcache-dtype", "fp8") == tokens("--kv-dtype", "fp8") == cache


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*STEP, "--precision", "dynamic-fp9"], "dynamic-fp8"),
        ([*STEP, "--gemm-dtype", "fp9"], "gemm_dtype"),
        ([*STEP, "--kv-dtype", "bf16", "--precision", "kv-cache-fp8"], "Give one of the two"),
        (["kv", MOE, "--gpu", GPU, "--precision", "fp8"], "preset"),
        (["kv", MOE, "--gpu", GPU, "--kv-dtype", "int8", "--kvcache-dtype", "fp8"], "kv_dtype"),
        (["kv", MOE, "--gpu", GPU, "--tp", "1:2000"], "3, 5, 6, 7, 9 and 1,989 more"),
        *(([*STEP, "--memory-utilization", wrong], "in (0, 1]") for wrong in ("nan", "7", "-1", "0")),
        (["kv", MOE, "--gpu", GPU, "--memory-utilization", "nan"], "in (0, 1]"),
    ],
)
def test_errors_of_commands_are_one_short_line(capsys, arguments, says):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("mfuroof: error: ")
    assert says in err
    assert len(err) < 400


def test_step_says_which_tokens_it_counts(capsys):
    mixed = [*STEP, "--prefill-tokens", "512"]
    record = json.loads(run(capsys, *mixed, "--json")[0])
    assert record["tokens_per_s_per_gpu"] == pytest.approx(65 / record["step_time_s"])
    assert record["prefill_tokens_per_s_per_gpu"] == pytest.approx(512 / record["step_time_s"])
    out, _ = run(capsys, *mixed)
    assert "output tokens:" in out
    assert "prompt tokens:" in out
    assert "prompt tokens:" not in run(capsys, *STEP)[0]
