"""The four-field runtime precision: values, spellings, and what becomes of each field on a model."""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, MfuroofWarning
from mfuroof.models import ModelConfig, get_model
from mfuroof.precision import canonical_kv_dtype, format_of
from mfuroof.precision.runtime import ALLOWED, RuntimePrecision

DENSE = ModelConfig(
    hidden_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=1024,
    vocab_size=1000,
)  # fmt: skip
MOE = get_model("Qwen/Qwen3-30B-A3B")
QUANTISED = get_model("Qwen/Qwen3-30B-A3B-FP8")

records = st.builds(RuntimePrecision, **{name: st.sampled_from(values) for name, values in ALLOWED.items()})


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in ALLOWED.items() for v in values])
def test_every_allowed_value_is_taken_in_any_case(field, value):
    record = RuntimePrecision.from_mapping({field: value.upper().replace("_", "-")})
    assert getattr(record, field) == value
    assert set(record.given()) == ({field} if value != "auto" else set())


@pytest.mark.parametrize(
    ("field", "alias", "value"),
    [
        ("gemm_dtype", "bf16", "bfloat16"),
        ("gemm_dtype", "half", "float16"),
        ("gemm_dtype", None, "auto"),
        ("kvcache_dtype", "float16", "fp16"),
        ("kvcache_dtype", "bf16", "bfloat16"),
        ("attention_dtype", "torch.bfloat16", "bfloat16"),
    ],
)
def test_aliases(field, alias, value):
    assert getattr(RuntimePrecision.from_mapping({field: alias}), field) == value


@pytest.mark.parametrize(
    "bad",
    [
        {"gemm_dtype": "fp9"},
        {"kvcache_dtype": "w4afp8"},
        {"attention_dtype": "int8"},
        {"moe_dtype": "float32"},
        {"gemm": "fp8"},
        {"gemm_dtype": 8},
        {"gemm_dtype": ["fp8"]},
        ["fp8"],
        "fp8",
    ],
)
def test_what_is_not_allowed_is_named(bad):
    with pytest.raises(InputError):
        RuntimePrecision.from_mapping(bad)


def test_all_problems_are_named_at_once():
    with pytest.raises(InputError) as error:
        RuntimePrecision("fp9", "fp9", "fp9", "fp9")
    assert [p.where for p in error.value.problems] == list(ALLOWED)


@given(records, st.sampled_from([DENSE, MOE, QUANTISED]))
def test_no_field_is_ignored_silently(record, model):
    arguments, notes = record.overrides(model)
    key = {"gemm_dtype": "weight_dtype", "kvcache_dtype": "kv_dtype"}
    for field, value in record.given().items():
        assert arguments.get(key.get(field, field)) == value or any(n.startswith(f"{field} = {value}") for n in notes)
    assert set(arguments) <= {key.get(f, f) for f in record.given()}


@given(records, st.sampled_from([DENSE, MOE, QUANTISED]))
def test_applied_precision_is_that_of_the_modules(record, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        new = record.applied(model)
    if record.kvcache_dtype != "auto":
        assert new.kv_dtype == canonical_kv_dtype(record.kvcache_dtype)
    if model is QUANTISED:
        assert new.layers == model.layers and new.weight_bytes == model.weight_bytes
        return
    if record.gemm_dtype != "auto":
        assert new.module_dtype("qkv") == format_of(record.gemm_dtype).name
    if record.moe_dtype != "auto" and model.is_moe:
        assert new.module_dtype("experts") == format_of(record.moe_dtype).name


def test_a_quantised_checkpoint_keeps_its_weights_and_takes_the_cache():
    with pytest.warns(MfuroofWarning, match=r"gemm_dtype = fp8 is dropped: the checkpoint is quantised already"):
        new = RuntimePrecision(gemm_dtype="fp8", kvcache_dtype="fp8").applied(QUANTISED)
    assert new.kv_dtype == "fp8" and new.weight_bytes == QUANTISED.weight_bytes


def test_e5m2_says_what_breaks():
    _, notes = RuntimePrecision(kvcache_dtype="fp8_e5m2").overrides(DENSE)
    assert any("FlashAttention" in n and "TensorRT-LLM" in n for n in notes)


def test_fp8_attention_needs_an_fp8_cache():
    assert RuntimePrecision(attention_dtype="fp8").overrides(DENSE).arguments == {}
    both = RuntimePrecision(attention_dtype="fp8", kvcache_dtype="fp8").overrides(DENSE)
    assert both == ({"kv_dtype": "fp8", "attention_dtype": "fp8"}, ())


def test_default_changes_nothing():
    assert RuntimePrecision().applied(MOE) is MOE
    assert RuntimePrecision().summary() == "all auto"
