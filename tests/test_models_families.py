"""Families with layers of their own: two spellings of one layer map are one model, and a bad entry names its key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from test_models_read import BASE, MOE

from mfuroof.errors import ConfigError
from mfuroof.models import ModelConfig
from mfuroof.models.registry import entry
from mfuroof.models.registry_build import main

NAS = "nvidia/Llama-3_3-Nemotron-Super-49B-v1"
NEMOTRON_H = "nvidia/Nemotron-H-56B-Base-8K"
LLAMA4 = "meta-llama/Llama-4-Maverick-17B-128E-Instruct"
GEMMA4 = "google/gemma-4-26B-A4B"
MIMO = "XiaomiMiMo/MiMo-V2-Flash"
V4 = "deepseek-ai/DeepSeek-V4-Flash"
M3 = "MiniMaxAI/MiniMax-M3"
KIMI = "moonshotai/Kimi-K3"
QWEN = "Qwen/Qwen3.5-27B"


def config_of(name: str) -> dict[str, Any]:
    """Return the config of a built-in model, of its language model where that is nested, without its precision."""
    config = dict(entry(name)[1])
    config = dict(config.get("text_config") or config)
    return {k: v for k, v in config.items() if "quantization" not in k and k != "expert_dtype"}


def read(name: str, drop: tuple[str, ...] = (), **changes: Any) -> ModelConfig:
    config = {k: v for k, v in config_of(name).items() if k not in drop}
    return ModelConfig.from_hf(config | changes, name=name)


def kinds(name: str, key: str, names: dict[Any, str]) -> list[str]:
    config = config_of(name)
    return [names[x] for x in config[key][: config["num_hidden_layers"]]]


def test_llama4_layer_types_are_its_interval_of_layers_without_rope() -> None:
    types = ["full_attention" if (i + 1) % 4 == 0 else "chunked_attention" for i in range(48)]
    assert read(LLAMA4, layer_types=types) == read(LLAMA4)
    assert read(LLAMA4, layer_types=["chunked_attention"] * 48) != read(LLAMA4)


def test_mimo_layer_types_are_its_pattern_and_sinks_are_counted() -> None:
    types = kinds(MIMO, "hybrid_layer_pattern", {0: "full_attention", 1: "sliding_attention"})
    assert read(MIMO, ("hybrid_layer_pattern",), layer_types=types) == read(MIMO)
    windows = {i: s.attention.sliding_window for s in read(MIMO).layers for i in s.layer_indices}
    assert [windows[i] for i in range(48)] == [None if kind == "full_attention" else 128 for kind in types]
    full = types.count("full_attention")
    sinks = read(MIMO, add_full_attention_sink_bias=True)
    assert sinks.total_params == read(MIMO).total_params + full * 64  # one number a head
    unsaid = read(MIMO, ("hybrid_layer_pattern",))  # full attention in the first layer and in every sixth
    assert {i for s in unsaid.layers if s.attention.sliding_window is None for i in s.layer_indices} == {
        0, *range(5, 48, 6)
    }  # fmt: skip


def test_deepseek_v4_layer_types_are_its_ratios() -> None:
    names = {0: "sliding_attention", 4: "c4", 128: "c128"}
    types = kinds(V4, "compress_ratios", names)
    assert read(V4, ("compress_ratios",), layer_types=types, compress_rates={"c4": 4, "c128": 128}) == read(V4)


def test_minimax_m3_flat_keys_are_its_nested_ones() -> None:
    nested = config_of(M3)["sparse_attention_config"]
    flat = {
        "index_n_heads": nested["sparse_num_index_heads"], "index_head_dim": nested["sparse_index_dim"],
        "index_topk_blocks": nested["sparse_topk_blocks"], "index_block_size": nested["sparse_block_size"],
        "layer_types": [("full_attention", "sparse")[mark] for mark in nested["sparse_attention_freq"]],
    }  # fmt: skip
    assert read(M3, ("sparse_attention_config",), **flat) == read(M3)


def test_kimi_layer_types_are_its_lists() -> None:
    nested = config_of(KIMI)["linear_attn_config"]
    n = config_of(KIMI)["num_hidden_layers"]
    types = ["full_attention" if i + 1 in nested["full_attn_layers"] else "linear_attention" for i in range(n)]
    flat = {
        "linear_num_heads": nested["num_heads"], "linear_head_dim": nested["head_dim"],
        "linear_conv_kernel_dim": nested["short_conv_kernel_size"], "layer_types": types,
    }  # fmt: skip
    gated = read(KIMI, linear_attn_config=nested | {"use_full_rank_gate": False})
    assert read(KIMI, ("linear_attn_config",), **flat) == gated


def test_nas_blocks_may_have_no_mlp_and_a_window() -> None:
    blocks = config_of(NAS)["block_configs"]
    attention = next(i for i, b in enumerate(blocks) if not b["attention"].get("no_op"))
    changed = [dict(b) for b in blocks]
    changed[attention] = {
        "attention": {**blocks[attention]["attention"], "window_length": 4096},
        "ffn": {"no_op": True},
    }
    layer = next(s for s in read(NAS, block_configs=changed).layers if attention in s.layer_indices)
    assert (layer.mlp.kind, layer.attention.sliding_window) == ("none", 4096)


def test_nemotron_h_layer_types_are_its_pattern() -> None:
    names = {"M": "mamba", "-": "mlp", "*": "attention"}
    types = [names[c] for c in config_of(NEMOTRON_H)["hybrid_override_pattern"]]
    assert read(NEMOTRON_H, ("hybrid_override_pattern",), layer_types=types) == read(NEMOTRON_H)


NAS_BLOCKS = config_of(NAS)["block_configs"]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (NAS, {"block_configs": None}, "block_configs"),
    (NAS, {"block_configs": NAS_BLOCKS[1:]}, "block_configs"),
    (NAS, {"block_configs": [7, *NAS_BLOCKS[1:]]}, "attention and ffn"),
    (NAS, {"block_configs": [{"attention": {"n_heads_in_group": 7}, "ffn": {"no_op": True}}, *NAS_BLOCKS[1:]]},
     "n_heads_in_group"),
    (NAS, {"block_configs": [{"attention": {"no_op": True}, "ffn": {"ffn_mult": "x"}}, *NAS_BLOCKS[1:]]}, "ffn_mult"),
    (
        NAS,
        {"block_configs": [{"attention": {"replace_with_linear": True}, "ffn": {"no_op": True}}, *NAS_BLOCKS[1:]]},
        "replace_with_linear",
    ),
    (NEMOTRON_H, {"hybrid_override_pattern": None, "layer_types": ["mamba", "attend"]}, "layer_types"),
    (NEMOTRON_H, {"hybrid_override_pattern": "ME", "num_hidden_layers": 2, "num_experts": 2, "num_experts_per_tok": 3,
                  "moe_intermediate_size": 64}, "num_experts_per_tok"),
    (GEMMA4, {"layer_types": ["chunked_attention"] * 30}, "layer_types"),
    (V4, {"o_groups": 7}, "o_groups"),
    (V4, {"num_key_value_heads": 2}, "num_key_value_heads"),
    (V4, {"compress_ratios": None, "layer_types": ["c4"] * 43, "compress_rates": {}}, "compress_ratios"),
    (V4, {"compress_ratios": None, "layer_types": ["c4"] * 43}, "compress_ratios"),
    (M3, {"attention_output_gate": True}, "attention_output_gate"),
    (M3, {"sparse_attention_config": 7}, "sparse_attention_config"),
    (KIMI, {"linear_attn_config": None, "linear_num_heads": 96, "linear_head_dim": 128}, "linear_attn_config"),
    (KIMI, {"linear_attn_config": {"num_heads": 96, "head_dim": 128, "full_attn_layers": [1], "kda_layers": [1]}},
     "in one of them"),
    (QWEN, {"layer_types": ["sliding_attention"] * 64}, "layer_types"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "changes", "key"), REFUSED, ids=[f"{k}-{i}" for i, (_, _, k) in enumerate(REFUSED)])
def test_what_a_family_cannot_represent_names_its_key(name: str, changes: dict[str, Any], key: str) -> None:
    config = {k: v for k, v in (config_of(name) | changes).items() if v is not None}
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_hf(config)


# ------------------------------------------------------------------------------------------------ registry files


def test_a_condensed_config_means_the_same_model(tmp_path: Any) -> None:
    """What the registry leaves out of a checkpoint's files changes nothing that is read from them."""
    names = [f"model.layers.{i}.mlp.{p}_proj" for i in range(4) for p in ("gate", "up", "down")]
    files = {
        "me--plain": (BASE | {"rope_theta": 1e6, "sliding_window": None, "eos_token_id": 2, "head_dim": None}, None),
        "me--outer": ({"model_type": "vl", "vision_config": {"depth": 7}, "text_config": BASE | {"top_p": 1}}, None),
        "me--awq": (BASE | {"quantization_config": {"quant_method": "awq", "modules_to_not_convert": names[:6]}}, None),
        "me--mixed": (BASE, {"quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {
            name: {"quant_algo": "FP8" if "down" in name else "NVFP4"} for name in names}}}),
        "Qwen--Qwen3-30B-A3B": (MOE, None),
    }  # fmt: skip
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir(), target.mkdir()
    for name, (config, sidecar) in files.items():
        (source / f"{name}_config.json").write_text(json.dumps(config))
        if sidecar:
            (source / f"{name}_hf_quant_config.json").write_text(json.dumps(sidecar))
    main(str(source), str(target))
    made = json.loads((target / "me.json").read_text())["models"]
    for name, (config, sidecar) in files.items():
        if name.startswith("me"):
            found = made[name.replace("--", "/")]
            again = ModelConfig.from_hf(expanded(found["config"]), sidecar=expanded(found.get("sidecar")))
            assert again == ModelConfig.from_hf(config, sidecar=sidecar), name
    assert "rope_theta" not in made["me/plain"]["config"] and "vision_config" not in made["me/outer"]["config"]
    assert made["me/plain"]["config"]["sliding_window"] is None  # says something: no window
    assert len(json.dumps(made["me/mixed"]["sidecar"])) < 0.5 * len(json.dumps(files["me--mixed"][1]))
    qwen = json.loads((target / "qwen.json").read_text())["models"]["Qwen/Qwen3-30B-A3B"]
    assert "Qwen/Qwen3-30B-A3B-Instruct-2507" in qwen["aliases"]


def expanded(value: Any) -> Any:
    from mfuroof.models.expand import expand_names

    return None if value is None else expand_names(value)
