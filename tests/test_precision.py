"""Formats, names, KV formats, and a model in another precision."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.models import ModelConfig, get_model
from mfuroof.precision import FORMATS, KV_FORMATS, canonical_dtype, canonical_kv_dtype, format_of, kv_format_of
from mfuroof.precision.activations import with_activations
from mfuroof.precision.names import ALIASES

BYTES = {
    "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8_block": 1 + 4 / 16384, "nvfp4": 0.5625, "w4a16_nvfp4": 0.5625,
    "w4a16_mxfp4": 0.53125, "w4a8_mxfp4_mxfp8": 0.53125, "mxfp8": 1.03125, "mxfp6": 0.78125, "int4_wo": 0.515625,
    "nf4": 0.5625, "ternary": 0.25, "int8": 1, "int8_wo": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "size"), BYTES.items())
def test_bytes_per_weight(name: str, size: float) -> None:
    assert FORMATS[name].bytes_per_weight == size


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_sane(name: str) -> None:
    f = FORMATS[name]
    assert f.name == name == canonical_dtype(name) == format_of(name).name
    assert f.bits / 8 <= f.bytes_per_weight <= 1.3 * f.bits / 8
    assert f.compute_class in ("tf32", "bf16", "fp8", "int8", "fp4")
    assert not f.weight_only or f.compute_class == "bf16"
    assert f.matrix_bytes(256, 512) >= 256 * 512 * f.bits / 8


def test_aliases_lead_to_formats() -> None:
    assert set(ALIASES.values()) <= set(FORMATS)
    assert not set(ALIASES) & set(FORMATS)
    assert all(canonical_dtype(a.upper().replace("_", "-")) == n for a, n in ALIASES.items())


@pytest.mark.parametrize(
    ("name", "size"), [("bf16", 2), ("FP8", 1), ("e4m3", 1), ("nvfp4", 0.5625), ("float16", 2), ("int4", 0.5)]
)
def test_kv_formats(name: str, size: float) -> None:
    assert kv_format_of(name).bytes_per_element == size
    assert canonical_kv_dtype(name) in KV_FORMATS


@pytest.mark.parametrize("bad", ["", "fp5", "bf61", "int", None, 8])
def test_unknown_names(bad: object) -> None:
    with pytest.raises(UnknownNameError):
        canonical_dtype(bad)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        canonical_kv_dtype(bad)  # type: ignore[arg-type]


DENSE, SPARSE, PACKED = "meta-llama/Meta-Llama-3.1-8B", "Qwen/Qwen3-30B-A3B", "openai/gpt-oss-20b"
LINEAR = ("qkv", "o", "gate_up", "down")


def test_narrow_weights_leave_the_rest() -> None:
    plain, narrow = get_model(DENSE), get_model(DENSE).with_precision(weight_dtype="int4")
    parts = plain.params_by_component()
    linear = sum(parts[k] for k in LINEAR)
    assert narrow.weight_bytes == linear * 0.515625 + (plain.total_params - linear) * 2
    assert narrow.kv_bytes_per_token == plain.kv_bytes_per_token
    assert (narrow.total_params, narrow.dtype, narrow.kv_dtype) == (plain.total_params, plain.dtype, plain.kv_dtype)
    assert narrow.quantization.source == "override"
    assert all(narrow.module_dtype(k) == "int4_wo" for k in LINEAR)
    assert narrow.module_dtype("lm_head") == narrow.module_dtype("embedding") == "bf16"


def test_wide_weights_change_everything() -> None:
    model = get_model(DENSE)
    assert model.with_precision(weight_dtype="float32").weight_bytes == 2 * model.weight_bytes
    assert model.with_precision(weight_dtype="fp16").weight_bytes == model.weight_bytes


def test_quantised_checkpoint_changes_only_what_it_quantises() -> None:
    model = get_model(PACKED)
    back = model.with_precision(weight_dtype="bf16")
    assert back.weight_bytes == 2 * back.total_params and back.quantization.method == "none"
    eight = model.with_precision(weight_dtype="fp8")
    experts = model.params_by_component()["experts"] - 24 * 32 * (2 * 2880 + 2880)
    assert eight.weight_bytes == experts + (model.total_params - experts) * 2
    assert eight.module_dtype("qkv") == "bf16"


def test_experts_on_their_own() -> None:
    model = get_model(SPARSE).with_precision(moe_dtype="mxfp4")
    assert (model.module_dtype("experts"), model.module_dtype("qkv")) == ("w4a16_mxfp4", "bf16")
    both = get_model(SPARSE).with_precision(weight_dtype="fp8", moe_dtype="nvfp4")
    assert (both.module_dtype("experts"), both.module_dtype("qkv")) == ("nvfp4", "fp8")


def test_modules_by_kind_and_name_win() -> None:
    chosen = {"lm_head": "fp8", "self_attn.o_proj": "nvfp4", "gate_up": "bf16"}
    model = get_model(DENSE).with_precision(weight_dtype="int4", per_module=chosen)
    kinds = ("lm_head", "o", "gate_up", "down")
    assert [model.module_dtype(k) for k in kinds] == ["fp8", "nvfp4", "bf16", "int4_wo"]
    with pytest.raises(UnknownNameError, match="attention"):
        model.with_precision(per_module={"attention": "fp8"})


@pytest.mark.parametrize(
    ("weights", "act", "name", "compute"),
    [
        ("fp8", "bf16", "fp8_wo", "bf16"),
        ("int4", "fp8", "w4a8_int4_fp8", "fp8"),
        ("int4", "int8", "w4a8_int8", "int8"),
        ("nvfp4", "bf16", "w4a16_nvfp4", "bf16"),
        ("mxfp4", "mxfp8", "w4a8_mxfp4_mxfp8", "fp8"),
        ("nvfp4", "nvfp4", "nvfp4", "fp4"),
    ],
)
def test_activations(weights: str, act: str, name: str, compute: str) -> None:
    model = get_model(DENSE).with_precision(weight_dtype=weights, act_dtype=act)
    plain = get_model(DENSE).with_precision(weight_dtype=weights)
    assert (model.module_dtype("qkv"), model.quantization.compute_class) == (name, compute)
    assert model.weight_bytes == plain.weight_bytes


def test_activations_that_cannot_meet_the_weights() -> None:
    with pytest.raises(InputError, match="act_dtype"):
        get_model(DENSE).with_precision(weight_dtype="int4", act_dtype="nvfp4")
    assert with_activations(FORMATS["nf4"], "bf16").weight_only


def test_choices_without_effect_warn() -> None:
    with pytest.warns(MfuroofWarning, match="moe_dtype"):
        assert get_model(DENSE).with_precision(moe_dtype="fp8").layers == get_model(DENSE).layers
    with pytest.warns(MfuroofWarning, match="act_dtype"):
        assert get_model(DENSE).with_precision(act_dtype="fp8") == get_model(DENSE)


def test_auto_and_none_change_nothing() -> None:
    model = get_model(PACKED)
    assert model.with_precision() == model == model.with_precision(weight_dtype="auto", kv_dtype="auto", act_dtype=None)


def test_kv_and_attention_change_nothing_else() -> None:
    model = get_model(DENSE)
    other = model.with_precision(kv_dtype="nvfp4", attention_dtype="fp8")
    assert other.kv_bytes_per_token == model.kv_bytes_per_token * 0.5625 / 2
    assert (other.attention_dtype, other.layers, other.weight_bytes) == ("fp8", model.layers, model.weight_bytes)
    assert other.quantization.kv_bytes_per_element == 0.5625


@given(st.floats(0.375, 4.0))
@pytest.mark.filterwarnings("ignore::mfuroof.errors.MfuroofWarning")
def test_one_number(size: float) -> None:
    for name in (DENSE, PACKED):
        model = get_model(name).with_precision(weight_bytes_per_param=size)
        assert model.weight_bytes == pytest.approx(size * model.total_params, rel=1e-12)
        assert (model.quantization.weight_bytes_nominal, model.quantization.source) == (size, "override")


@pytest.mark.parametrize("bad", [0.3, 4.1, 0, -1, float("nan"), float("inf"), "x", None.__class__])
def test_one_number_out_of_range(bad: object) -> None:
    with pytest.raises(InputError, match="weight_bytes_per_param"):
        get_model(DENSE).with_precision(weight_bytes_per_param=bad)


def test_weights_wider_than_the_compute_dtype_warn() -> None:
    with pytest.warns(MfuroofWarning, match="wider"):
        get_model(DENSE).with_precision(weight_bytes_per_param=4.0)


SMALL = ModelConfig(
    hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=512, vocab_size=100, dtype="fp16"
)


@given(st.sampled_from(sorted(FORMATS)), st.sampled_from(sorted(FORMATS)))
def test_weight_bytes_grow_with_bits(one: str, two: str) -> None:
    a, b = (SMALL.with_precision(weight_dtype=n) for n in (one, two))
    if FORMATS[one].bytes_per_weight <= FORMATS[two].bytes_per_weight and FORMATS[one].group_size != -1:
        assert a.weight_bytes <= b.weight_bytes
    assert a.kv_bytes_per_token == b.kv_bytes_per_token == SMALL.kv_bytes_per_token
