"""Which modules a checkpoint quantises: ignore lists by each format's rule, mixed precision, experts, sidecars."""

# ruff: noqa: E501 - one case a line reads best as a table
from __future__ import annotations

import json
from typing import Any

import pytest
from test_quantization_formats import BASE, F8, ct, mo

from mfuroof.errors import MfuroofWarning
from mfuroof.models import LayerSpec, ModelConfig, get_model

MOE = {
    "model_type": "qwen3_moe",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_experts": 16,
    "num_experts_per_tok": 2,
    "mlp_only_layers": [0],
    "vocab_size": 1000,
    "torch_dtype": "bfloat16",
}
W4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}


def read(block: dict[str, Any], base: dict[str, Any] = MOE, **more: Any) -> ModelConfig:
    return ModelConfig.from_hf({**base, "quantization_config": block}, name="m", **more)


def at(model: ModelConfig, layer: int) -> LayerSpec:
    return next(s for s in model.layers if layer in s.layer_indices)


def formats(model: ModelConfig, layer: int) -> dict[str, str]:
    spec = at(model, layer)
    return {m.name: model.format_in(spec, m.name).name for m in model.modules(spec) if m.matrix_params}


def plain(model: ModelConfig, layer: int) -> set[str]:
    return {name for name, fmt in formats(model, layer).items() if fmt == model.dtype}


QKVO = {f"self_attn.{p}_proj" for p in "qkvo"}
EXPERTS = {f"mlp.experts.{p}_proj" for p in ("gate", "up", "down")}
DENSE = {f"mlp.{p}_proj" for p in ("gate", "up", "down")}


def test_embedding_head_and_router_stay_16_bit_by_default() -> None:
    for block in ({"quant_method": "fp8"}, mo("NVFP4"), ct(W4), {"quant_method": "gptq", "bits": 4}):
        model = read(block)
        assert plain(model, 1) == {"mlp.gate"}
        assert model.module_dtype("embedding") == model.module_dtype("lm_head") == "bf16"
        assert model.module_dtype("router") == "bf16"


def test_gptq_head_only_where_it_says_so() -> None:
    block = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    assert read({**block, "lm_head": True}).module_dtype("lm_head") == "int4_wo"
    assert read({**block, "lm_head": False}).module_dtype("lm_head") == "bf16"


RULES = [
    # (block, plain modules of layer 0 (dense), of layer 1 (sparse), of layer 10)
    ({"quant_method": "fp8", "modules_to_not_convert": ["gate"]}, set(), {"mlp.gate"}, {"mlp.gate"}),
    ({"quant_method": "fp8", "ignored_layers": ["model.layers.1.self_attn"]}, set(), {"mlp.gate"} | QKVO, {"mlp.gate"}),
    (
        {"quant_method": "awq", "modules_to_not_convert": ["self_attn"]},
        QKVO,
        {"mlp.gate"} | QKVO,
        {"mlp.gate"} | QKVO,
    ),
    (
        {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": ["o_proj"]},
        {"self_attn.o_proj"},
        {"mlp.gate", "self_attn.o_proj"},
        {"mlp.gate", "self_attn.o_proj"},
    ),
    ({**ct(W4), "ignore": ["re:.*self_attn.*"]}, QKVO, {"mlp.gate"} | QKVO, {"mlp.gate"} | QKVO),
    (
        {**ct(W4), "ignore": ["model.layers.1.self_attn.q_proj"]},
        set(),
        {"mlp.gate", "self_attn.q_proj"},
        {"mlp.gate"},
    ),
    ({**ct(W4), "ignore": ["self_attn"]}, set(), {"mlp.gate"}, {"mlp.gate"}),
    ({**ct(W4), "ignore": [r"re:.*mlp\.(gate|up|down)_proj.*"]}, DENSE, {"mlp.gate"}, {"mlp.gate"}),
    (mo("NVFP4", exclude_modules=["model.layers.1.*"]), set(), {"mlp.gate"} | QKVO | EXPERTS, {"mlp.gate"}),
    (mo("NVFP4", exclude_modules=["model.layers.1*"]), set(), {"mlp.gate"} | QKVO | EXPERTS, {"mlp.gate"} | QKVO | EXPERTS),
    (mo("NVFP4", exclude_modules=["*self_attn*"]), QKVO, {"mlp.gate"} | QKVO, {"mlp.gate"} | QKVO),
    (mo("NVFP4", exclude_modules=["model.layers.1.self_attn"]), set(), {"mlp.gate"} | QKVO, {"mlp.gate"}),
    (
        {"quant_method": "gptq", "bits": 4, "dynamic": {r"-:model\.layers\.1\.self_attn.*": {}}},
        set(),
        {"mlp.gate"} | QKVO,
        {"mlp.gate"},
    ),
    ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, QKVO | DENSE, {"mlp.gate"} | QKVO, {"mlp.gate"} | QKVO),
]  # fmt: skip


@pytest.mark.parametrize(("block", "dense", "first", "tenth"), RULES)
def test_ignore_lists(block: dict[str, Any], dense: set[str], first: set[str], tenth: set[str]) -> None:
    model = read(block)
    assert (plain(model, 0), plain(model, 1), plain(model, 10)) == (dense, first, tenth)


def test_gptq_dynamic_gives_other_bits() -> None:
    block = {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 128,
        "dynamic": {r"+:.*o_proj": {"bits": 8, "group_size": 64}},
    }
    model = read(block)
    fmt = model.module_format("o")
    assert (fmt.bits, fmt.group_size, model.module_dtype("qkv")) == (8, 64, "int4_wo")


def test_gptq_list_of_what_is_quantised() -> None:
    block = {
        "quant_method": "gptq",
        "bits": 4,
        "modules_in_block_to_quantize": [["self_attn.q_proj"], ["self_attn.o_proj"]],
    }
    assert set(formats(read(block), 1)) - plain(read(block), 1) == {"self_attn.q_proj", "self_attn.o_proj"}


def test_autoround_extra_config() -> None:
    extra = {"model.layers.1.self_attn.o_proj": {"bits": 16}, "lm_head": {"bits": 8}}
    model = read({"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": extra})
    assert plain(model, 1) == {"mlp.gate", "self_attn.o_proj"}
    assert plain(model, 2) == {"mlp.gate"}
    assert model.module_dtype("lm_head") == "int8_wo"


def test_mlx_exceptions() -> None:
    own = {"group_size": 64, "bits": 4, "model.layers.1.mlp.gate": {"group_size": 64, "bits": 8}}
    model = ModelConfig.from_hf({**MOE, "quantization": own, "num_experts": 16}, name="m")
    assert model.quantization.method == "mlx"
    assert formats(model, 1)["mlp.gate"] == "int8_wo"
    assert formats(model, 2)["mlp.gate"] == "bf16"


def test_groups_with_different_targets() -> None:
    groups = {
        "group_0": {"weights": F8 | {"strategy": "tensor"}, "input_activations": F8, "targets": ["re:.*self_attn.*"]},
        "group_1": {"weights": W4, "targets": ["Linear"]},
    }
    model = read({"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]})
    assert (model.module_dtype("qkv"), model.module_dtype("experts")) == ("fp8", "int4_wo")
    assert model.quantization.weight_bits == 4  # most weights


def test_groups_that_contradict_each_other_warn() -> None:
    groups = {
        "b": {"weights": W4, "targets": ["Linear"]},
        "a": {"weights": F8 | {"strategy": "tensor"}, "targets": ["Linear"]},
    }
    with pytest.warns(MfuroofWarning, match="config_groups"):
        model = read({"quant_method": "compressed-tensors", "config_groups": groups})
    assert model.module_dtype("qkv") == "fp8_wo"


def test_quantized_layers() -> None:
    paths = [f"model.layers.{i}.mlp.experts.{e}" for i in range(12) for e in range(16)]
    listed = {f"{path}.{p}_proj": {"quant_algo": "NVFP4"} for path in paths for p in ("gate", "up", "down")}
    listed |= {f"model.layers.{i}.self_attn": {"quant_algo": "FP8"} for i in range(12)}
    listed["lm_head"] = {"quant_algo": "FP8"}
    model = read({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": listed})
    assert (model.module_dtype("qkv"), model.module_dtype("experts"), model.module_dtype("lm_head")) == (
        "fp8",
        "nvfp4",
        "fp8",
    )
    assert plain(model, 0) == DENSE


def test_list_of_layers_may_stand_in_the_sidecar_only() -> None:
    side = {
        "quantization": {
            "quant_algo": "MIXED_PRECISION",
            "quantized_layers": {"model.layers.3.mlp.experts": {"quant_algo": "NVFP4"}},
        }
    }
    model = read({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, sidecar=side)
    assert model.quantization.source == "config"
    assert [i for s in model.layers if s.formats for i in s.layer_indices] == [3]


@pytest.mark.parametrize(
    ("where", "value", "expected"),
    [
        ("top", "fp4", "w4a8_mxfp4_mxfp8"),
        ("block", "fp4", "w4a8_mxfp4_mxfp8"),
        ("block", "nvfp4", "nvfp4"),
        ("block", "bf16", "bf16"),
        ("none", None, "fp8_block"),
    ],
)
def test_expert_dtype(where: str, value: str | None, expected: str) -> None:
    block: dict[str, Any] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    base = dict(MOE)
    if where != "none":
        (base if where == "top" else block)["expert_dtype"] = value
    model = read(block, base)
    assert (model.module_dtype("experts"), model.module_dtype("qkv")) == (expected, "fp8_block")


def test_quant_method_alone_does_not_decide() -> None:
    both = {
        "quant_method": "fp8",
        "quant_algo": "MIXED_PRECISION",
        "moe_quant_algo": "NVFP4",
        "ignore": ["*self_attn*"],
    }
    model = read({**both, "weight_block_size": [128, 128]})
    assert (model.module_dtype("experts"), model.module_dtype("qkv")) == ("nvfp4", "fp8_block")


def test_unknown_expert_dtype_warns() -> None:
    with pytest.warns(MfuroofWarning, match="expert_dtype = 'fp5'"):
        assert read({"quant_method": "fp8", "expert_dtype": "fp5"}).module_dtype("experts") == "fp8"


SIDE = {
    "producer": {"name": "modelopt"},
    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16},
}


@pytest.mark.parametrize(("precedence", "expected", "kv"), [("config", "fp8", 2.0), ("sidecar", "nvfp4", 1.0)])
def test_precedence(precedence: str, expected: str, kv: float) -> None:
    model = read({"quant_method": "fp8"}, sidecar=SIDE, quantization_precedence=precedence)
    assert (model.module_dtype("qkv"), model.quantization.kv_bytes_per_element) == (expected, kv)


@pytest.mark.parametrize("file", ["hf_quant_config.json", "quantize_config.json"])
def test_sidecar_is_found_beside_the_config(tmp_path: Any, file: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(MOE))
    side = SIDE if file.startswith("hf") else {"bits": 4, "group_size": 128, "desc_act": False}
    (tmp_path / file).write_text(json.dumps(side))
    for source in (tmp_path, tmp_path / "config.json", str(tmp_path)):
        model = ModelConfig.from_hf(source)
        assert (model.quantization.source, model.quantization.weight_bits) == ("sidecar", 4)


PUBLISHED = [  # bytes per parameter of the whole model, or GiB of the checkpoint
    ("openai/gpt-oss-120b", 60.8, True),
    ("openai/gpt-oss-20b", 12.8, True),
    ("openai/gpt-oss-20b", 0.658, False),
    ("nvidia/Gemma-4-31B-IT-NVFP4", 1.026, False),
    ("nvidia/Qwen3.6-27B-NVFP4", 0.749, False),
    ("moonshotai/Kimi-K2.5", 0.579, False),
]


@pytest.mark.parametrize(("name", "figure", "gib"), PUBLISHED)
def test_real_checkpoints(name: str, figure: float, gib: bool) -> None:
    model = get_model(name)
    size = model.weight_bytes / 2**30 if gib else model.weight_bytes / model.total_params
    assert round(size, 1 if gib else 3) == figure


def test_engines_differ_on_a_real_conflict() -> None:
    from mfuroof.models.registry import entry

    _, config, side = entry("nvidia/Qwen3.6-35B-A3B-NVFP4")
    inside = ModelConfig.from_hf(config, sidecar=side)
    beside = ModelConfig.from_hf(config, sidecar=side, quantization_precedence="sidecar")
    assert (inside.kv_dtype, beside.kv_dtype) == ("bf16", "fp8")


def test_latent_cache_format_is_packed() -> None:
    model = get_model("deepseek-ai/DeepSeek-V3")
    assert model.kv_bytes_per_token == 61 * 576 * 2
    assert model.with_precision(kv_dtype="fp8").kv_bytes_per_token == 61 * 576
    assert model.with_precision(kv_dtype="fp8_ds_mla").kv_bytes_per_token == 61 * 656


def test_base_case_is_untouched() -> None:
    assert ModelConfig.from_hf(BASE).quantization.method == "none"
