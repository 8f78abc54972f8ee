"""Parameter counts of real models, by component and as a whole, against figures from elsewhere.

Totals equal the parameters of the models that the transformers library builds from the same configs; where a card or
paper states a figure, it is named.
"""

# ruff: noqa: SIM905 - a list of names reads best as text
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import naive_models as naive
import pytest

from mfuroof.models import ModelConfig, get_model, known_models

COUNTS: dict[str, int] = json.loads((Path(__file__).parent / "data" / "param_counts.json").read_text())["params"]


@pytest.mark.parametrize("name", known_models())
def test_total_params(name: str) -> None:
    assert get_model(name).total_params == COUNTS[name]


@pytest.mark.parametrize(
    ("name", "billions", "without_embedding"),
    [
        ("openai/gpt-oss-120b", 5.13, True),  # model card
        ("openai/gpt-oss-20b", 3.61, True),  # model card
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", 3.23, True),  # model card
        ("deepseek-ai/DeepSeek-V3", 37.6, False),
        ("Qwen/Qwen3-235B-A22B", 22.2, False),
        ("Qwen/Qwen3-30B-A3B", 3.35, False),
        ("moonshotai/Kimi-K2-Instruct", 32.9, False),
        ("mistralai/Mixtral-8x7B-v0.1", 12.9, False),
    ],
)
def test_active_params(name: str, billions: float, without_embedding: bool) -> None:
    model = get_model(name)
    active = model.active_params - (model.params_by_component()["embedding"] if without_embedding else 0)
    assert round(active / 1e9, 2 if billions < 10 else 1) == billions


@pytest.mark.parametrize("name", known_models())
def test_counts_are_consistent(name: str) -> None:
    model = get_model(name)
    parts = model.params_by_component()
    assert sum(parts.values()) == model.total_params
    assert all(n > 0 for n in parts.values())
    assert 0 < model.active_params <= model.total_params
    assert (model.active_params == model.total_params) == (not model.is_moe)
    assert sum(s.count for s in model.layers) == model.num_hidden_layers
    assert sorted(i for s in model.layers for i in s.layer_indices) == list(range(model.num_hidden_layers))
    assert all(len(s.layer_indices) == s.count for s in model.layers)


def test_inexact_counts_say_so() -> None:
    inexact = {n for n in known_models() if not get_model(n).exact}
    assert inexact == {"moonshotai/Kimi-K3", "stepfun-ai/Step-3.7-Flash", "stepfun-ai/Step-3.7-Flash-FP8"}


DENSE = [
    ("llama", {"attention_bias": False}, {}),
    ("llama", {"attention_bias": True, "mlp_bias": True}, {"qkv_bias": True, "out_bias": True, "mlp_bias": True}),
    ("qwen2", {}, {"qkv_bias": True}),
    ("qwen3", {"head_dim": 48}, {"head_dim": 48, "qk_norm": 96}),
    ("mistral", {"tie_word_embeddings": True}, {"tied": True}),
    ("gemma2", {"head_dim": 32}, {"head_dim": 32, "tied": True, "norms": 4}),
    ("bloom", {}, {"qkv_bias": True, "out_bias": True, "mlp_bias": True, "matrices": 2, "bloom": True, "tied": True}),
]


@pytest.mark.parametrize(("kind", "keys", "facts"), DENSE, ids=[k for k, _, _ in DENSE])
def test_dense_formula(kind: str, keys: dict[str, Any], facts: dict[str, Any]) -> None:
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 3,
        "num_attention_heads": 8,
        "num_key_value_heads": 8 if kind == "bloom" else 2,
        "vocab_size": 1000,
    }
    model = ModelConfig.from_hf({"model_type": kind, **sizes, **keys})
    assert model.total_params == naive.dense_params(**sizes, **facts)


def test_mixture_formula() -> None:
    sizes = {
        "hidden_size": 256,
        "moe_intermediate_size": 96,
        "intermediate_size": 704,
        "num_hidden_layers": 5,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "vocab_size": 1000,
        "n_routed_experts": 16,
        "n_shared_experts": 2,
        "num_experts_per_tok": 4,
        "first_k_dense_replace": 2,
    }
    model = ModelConfig.from_hf({"model_type": "glm4_moe", **sizes})
    total, active = naive.mixture_params(**sizes)
    assert (model.total_params, model.active_params) == (total, active)


def test_latent_attention_formula() -> None:
    sizes = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 2,
        "num_attention_heads": 8,
        "vocab_size": 1000,
        "kv_lora_rank": 64,
        "q_lora_rank": 96,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
    }
    model = ModelConfig.from_hf({"model_type": "deepseek_v3", "num_key_value_heads": 8, "head_dim": 99, **sizes})
    assert model.total_params == naive.latent_params(**sizes)
    assert model.kv_bytes_per_token == 2 * (64 + 16) * 2


def test_numbers_and_config_agree() -> None:
    fields = {
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
    }
    numbers = ModelConfig(**fields)
    assert numbers.total_params == get_model("meta-llama/Meta-Llama-3.1-8B").total_params == 8030261248
    assert numbers.layers == get_model("meta-llama/Meta-Llama-3.1-8B").layers
    assert numbers.kv_bytes_per_token == 2 * 32 * 8 * 128 * 2


@pytest.mark.slow
def test_transformers_builds_the_same_models() -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from mfuroof.models.hf import merge_text_config
    from mfuroof.models.registry import entry

    same = {
        "kimi_k2": "deepseek_v3",
        "deepseek_ref": "deepseek_v4",
        "mimo": "qwen2",
        "minimax_m3": "minimax_m3_vl_text",
    }
    same["minimax_m3_vl"] = "minimax_m3_vl_text"
    checked = []
    for name in known_models():
        config = merge_text_config(entry(name)[1])
        kind = same.get(str(config["model_type"]), str(config["model_type"]))
        if kind not in CONFIG_MAPPING or not get_model(name).exact:
            continue
        drop = ("model_type", "quantization_config", "auto_map")
        built = CONFIG_MAPPING[kind].from_dict({k: v for k, v in config.items() if k not in drop})
        try:
            with torch.device("meta"):
                parts = AutoModelForCausalLM.from_config(built)
        except ValueError:
            continue  # text part of a vision model: transformers has no causal LM class for it
        assert sum({id(p): p.numel() for p in parts.parameters()}.values()) == get_model(name).total_params, name
        checked.append(name)
    assert len(checked) >= 75


KINDS = """gemma gemma2 gemma3_text qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next qwen3_5_text qwen3_5_moe_text deepseek_v3
mistral mixtral llama bloom gpt_oss minimax_m2 minimax_m3_vl_text nemotron_h llama4_text glm_moe_dsa deepseek_v4
mimo_v2_flash kimi_linear phi3 granite granitemoe smollm3 ernie4_5 olmo2 olmoe seed_oss glm4 glm4_moe_lite cohere
stablelm starcoder2 gpt_neox arcee""".split()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_transformers_defaults_of_each_family(kind: str) -> None:
    pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config = CONFIG_MAPPING[kind]()
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    model = ModelConfig.from_hf({**config.to_dict(), "model_type": kind})
    assert model.total_params == sum({id(p): p.numel() for p in built.parameters()}.values())
