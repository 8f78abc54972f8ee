"""Reading configs: aliases, nesting, layer patterns, windows; and refusing what cannot be represented."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mfuroof.errors import ConfigError, MfuroofWarning, UnknownNameError
from mfuroof.models import ModelConfig, get_model
from mfuroof.models.text import short

BASE = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
}
MOE = BASE | {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
MLA = BASE | {
    "model_type": "deepseek_v3",
    "kv_lora_rank": 64,
    "q_lora_rank": 96,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
}


def sparse(model: ModelConfig) -> list[int]:
    return sorted(i for s in model.layers if s.mlp.kind == "moe" for i in s.layer_indices)


def window(model: ModelConfig) -> list[int | None]:
    by = {i: s.attention.sliding_window for s in model.layers for i in s.layer_indices}
    return [by[i] for i in range(model.num_hidden_layers)]


@pytest.mark.parametrize(
    ("drop", "spelled"),
    [
        ("num_key_value_heads", {"num_kv_heads": 2}),
        ("num_key_value_heads", {"multi_query_group_num": 2}),
        ("hidden_size", {"n_embed": 256}),
        ("num_hidden_layers", {"n_layer": 4}),
        ("num_attention_heads", {"n_head": 8}),
        ("intermediate_size", {"ffn_hidden_size": 512}),
    ],
)
def test_spellings(drop: str, spelled: dict[str, int]) -> None:
    config = {k: v for k, v in BASE.items() if k != drop} | spelled
    assert ModelConfig.from_hf(config) == ModelConfig.from_hf(BASE)


@pytest.mark.parametrize("key", ["num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"])
def test_spellings_of_experts(key: str) -> None:
    config = {k: v for k, v in MOE.items() if k != "num_experts"} | {key: 8}
    assert ModelConfig.from_hf(config) == ModelConfig.from_hf(MOE)


def test_nested_text_config_wins_over_the_top_level() -> None:
    outer = {"model_type": "some_vl", "hidden_size": 9, "tie_word_embeddings": True, "text_config": BASE}
    model = ModelConfig.from_hf(outer)
    assert (model.hidden_size, model.tie_word_embeddings, model.model_type) == (256, True, "llama")


def test_head_dim_is_read_not_derived() -> None:
    model = ModelConfig.from_hf(BASE | {"head_dim": 64})
    assert (model.head_dim, model.kv_bytes_per_token) == (64, 4 * 2 * 2 * 64 * 2)


def test_missing_kv_heads_mean_multi_head_attention() -> None:
    config = {k: v for k, v in BASE.items() if k != "num_key_value_heads"}
    assert ModelConfig.from_hf(config).num_key_value_heads == 8


PATTERNS: list[tuple[dict[str, Any], list[int]]] = [
    ({}, [0, 1, 2, 3]),
    ({"first_k_dense_replace": 2}, [2, 3]),
    ({"first_k_dense_replace": 99}, []),
    ({"moe_layer_freq": 2}, [0, 2]),
    ({"moe_layer_freq": [0, 1, 1, 0]}, [1, 2]),
    ({"decoder_sparse_step": 2}, [1, 3]),
    ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1]),
    ({"mlp_only_layers": [0]}, [1, 2, 3]),
    ({"mlp_layer_types": ["dense", "sparse", "dense", "sparse"]}, [1, 3]),
    ({"interleave_moe_layer_step": 2}, [1, 3]),
    ({"moe_layers": [0, 3]}, [0, 3]),
]


@pytest.mark.parametrize(("keys", "expected"), PATTERNS)
def test_which_layers_are_sparse(keys: dict[str, Any], expected: list[int]) -> None:
    assert sparse(ModelConfig.from_hf(MOE | keys)) == expected


def test_experts_without_a_width_of_their_own_have_the_dense_one() -> None:
    config = {k: v for k, v in MOE.items() if k != "moe_intermediate_size"}
    assert ModelConfig.from_hf(config | {"model_type": "mixtral"}).moe_intermediate_size == 512


WINDOWS: list[tuple[dict[str, Any], list[int | None]]] = [
    ({}, [None] * 4),
    ({"sliding_window": 128}, [128] * 4),
    ({"sliding_window": 128, "use_sliding_window": False}, [None] * 4),
    ({"sliding_window": 128, "use_sliding_window": True, "max_window_layers": 3}, [None, None, None, 128]),
    ({"sliding_window": 128, "sliding_window_pattern": 2}, [128, None, 128, None]),
    ({"sliding_window": 128, "layer_types": ["sliding_attention", "full_attention"] * 2}, [128, None, 128, None]),
    ({"model_type": "mistral"}, [4096] * 4),
    ({"model_type": "mistral", "sliding_window": None}, [None] * 4),
]


@pytest.mark.parametrize(("keys", "expected"), WINDOWS)
def test_windows(keys: dict[str, Any], expected: list[int | None]) -> None:
    assert window(ModelConfig.from_hf(BASE | keys)) == expected


def test_windows_cap_their_groups_only() -> None:
    model = get_model("openai/gpt-oss-20b")
    groups = {g.window: g.num_layers for g in model.kv_layout.groups}
    assert groups == {128: 12, None: 12}


def test_layers_of_real_models() -> None:
    qwen = get_model("Qwen/Qwen3.5-27B")
    assert [(s.count, s.attention.kind) for s in qwen.layers] == [(48, "linear"), (16, "gqa")]
    assert qwen.layers[1].attention.gated and qwen.kv_bytes_per_token == 16 * 2 * 4 * 256 * 2
    assert qwen.kv_layout.state_bytes == 48 * (4 * 48 * 128 * 128 + 2 * (2 * 16 * 128 + 48 * 128) * 3)
    scout, maverick = (get_model(f"meta-llama/Llama-4-{n}-Instruct") for n in ("Scout-17B-16E", "Maverick-17B-128E"))
    assert len(sparse(scout)) == 48 and sparse(maverick) == list(range(1, 48, 2))
    assert window(scout)[:4] == [8192, 8192, 8192, None]
    deepseek = get_model("deepseek-ai/DeepSeek-V3.2")
    assert sparse(deepseek) == list(range(3, 61)) and deepseek.layers[0].attention.indexer is not None
    glm = get_model("zai-org/GLM-5.2")
    selectors = [s.attention.indexer for s in glm.layers for _ in range(s.count)]
    assert sum(i.num_heads > 0 for i in selectors) == 21  # the others read what an earlier layer chose
    assert {i.topk_tokens for i in selectors} == {2048}
    mimo = get_model("XiaomiMiMo/MiMo-V2-Flash")
    assert {(s.attention.head_dim, s.attention.v_head_dim) for s in mimo.layers} == {(192, 128)}
    assert mimo.kv_bytes_per_token == (9 * 4 + 39 * 8) * (192 + 128) * 2
    nas = get_model("nvidia/Llama-3_3-Nemotron-Super-49B-v1")
    assert sum(s.count for s in nas.layers if s.attention.kind == "gqa") == 49
    nano = get_model("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16")
    assert {s.attention.kind for s in nano.layers} == {"mamba", "gqa", "none"}
    gemma = get_model("google/gemma-4-26B-A4B")
    assert {(s.attention.head_dim, s.attention.k_eq_v) for s in gemma.layers} == {(256, False), (512, True)}
    bloom = get_model("bigscience/bloom")
    assert (bloom.layers[0].mlp.num_matrices, bloom.num_key_value_heads) == (2, 112)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (BASE | {"hidden_size": None}, "hidden_size"),
    (BASE | {"hidden_size": "256"}, "hidden_size"),
    (BASE | {"hidden_size": 0}, "hidden_size"),
    (BASE | {"hidden_size": -256}, "hidden_size"),
    (BASE | {"hidden_size": 256.5}, "hidden_size"),
    (BASE | {"hidden_size": True}, "hidden_size"),
    (BASE | {"hidden_size": float("inf")}, "hidden_size"),
    (BASE | {"hidden_size": 10**400}, "hidden_size"),
    (BASE | {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    (BASE | {"num_attention_heads": 7}, "head_dim"),
    (BASE | {"num_key_value_heads": 3}, "num_key_value_heads"),
    (BASE | {"num_key_value_heads": 16}, "num_key_value_heads"),
    (BASE | {"vocab_size": []}, "vocab_size"),
    (BASE | {"attention_bias": "yes"}, "attention_bias"),
    (BASE | {"num_experts_per_tok": 2}, "num_experts_per_tok"),
    (BASE | {"n_shared_experts": 1}, "n_shared_experts"),
    (BASE | {"layer_types": ["linear_attention"] * 4}, "layer_types"),
    (BASE | {"layer_types": ["full_attention"] * 3}, "layer_types"),
    (BASE | {"layer_types": ["sliding_attention"] * 4}, "sliding_window"),
    (BASE | {"mamba_d_state": 16}, "mamba_d_state"),
    (BASE | {"block_configs": [1]}, "block_configs"),
    (BASE | {"compress_ratios": [4]}, "compress_ratios"),
    (BASE | {"index_topk": 4, "index_n_heads": 4, "index_head_dim": 8}, "index_topk"),
    (BASE | {"hidden_act": "gelu", "model_type": "never_heard_of"}, "model_type"),
    (BASE | {"is_encoder_decoder": True, "model_type": "never_heard_of"}, "is_encoder_decoder"),
    (BASE | {"text_config": "text"}, "text_config"),
    (BASE | {"model_type": 7}, "model_type"),
    (MOE | {"num_experts_per_tok": 9}, "num_experts_per_tok"),
    (MOE | {"num_experts_per_tok": None}, "num_experts_per_tok"),
    (MOE | {"moe_layer_freq": [1, 0]}, "moe_layer_freq"),
    (MOE | {"mlp_only_layers": 3}, "mlp_only_layers"),
    (MOE | {"mlp_layer_types": ["odd"] * 4}, "mlp_layer_types"),
    (BASE | {"model_type": "nemotron_h", "hybrid_override_pattern": "MX"}, "hybrid_override_pattern"),
    (BASE | {"model_type": "nemotron_h", "hybrid_override_pattern": "*-*"}, "num_hidden_layers"),
    (BASE | {"model_type": "gemma4_text", "hidden_size_per_layer_input": 256}, "hidden_size_per_layer_input"),
    (BASE | {"model_type": "kimi_linear", "kv_lora_rank": 8}, "linear_attn_config"),
    (BASE | {"model_type": "deepseek_v4"}, "compress_ratios"),
    (BASE | {"model_type": "qwen3_next"}, "linear_num_key_heads"),
]


@pytest.mark.parametrize(("config", "key"), REFUSED, ids=[f"{k}-{i}" for i, (_, k) in enumerate(REFUSED)])
@pytest.mark.filterwarnings("ignore::mfuroof.errors.MfuroofWarning")
def test_what_cannot_be_represented_names_its_key(config: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        ModelConfig.from_hf(config)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_hf({"model_type": "llama"})
    assert {p.where for p in caught.value.problems} >= {"hidden_size", "num_hidden_layers", "vocab_size"}


def test_unknown_type_is_read_by_its_keys_with_a_warning() -> None:
    with pytest.warns(MfuroofWarning, match="never_heard_of"):
        model = ModelConfig.from_hf(BASE | {"model_type": "never_heard_of"})
    assert model.total_params == ModelConfig.from_hf(BASE).total_params
    assert not model.exact


def test_incomplete_latent_attention_warns() -> None:
    with pytest.warns(MfuroofWarning, match="v_head_dim"):
        model = ModelConfig.from_hf({k: v for k, v in MLA.items() if k != "v_head_dim"})
    assert model.layers[0].attention.mla is not None


def test_numbers_are_read_as_peers_read_them() -> None:
    fields = {"hidden_size": 100, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 0}
    with pytest.warns(MfuroofWarning):
        model = ModelConfig(**fields, vocab_size=0)
    assert (model.num_key_value_heads, model.vocab_size) == (8, 0)
    fields |= {"head_dim": 4, "intermediate_size": 8}
    with pytest.raises(UnknownNameError, match="hiden_size"):
        ModelConfig(hiden_size=3, **fields)
    with pytest.raises(ConfigError, match="num_experts_per_tok"):
        ModelConfig(**fields, num_experts=4)


def test_dtype_of_numbers() -> None:
    fields = {k: v for k, v in BASE.items() if k != "model_type"}
    assert ModelConfig(**fields, torch_dtype="float32").weight_bytes == 2 * ModelConfig(**fields).weight_bytes
    assert ModelConfig(**fields, dtype="fp32").quantization.weight_bytes_effective == 4
    assert ModelConfig(**fields, dtype="float16", kv_dtype="fp8").kv_dtype == "fp8"
    with pytest.raises(UnknownNameError, match="with_precision"):
        ModelConfig(**fields, dtype="fp8")


def test_a_folder_a_file_and_a_name(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BASE))
    folder, file = ModelConfig.from_hf(tmp_path), ModelConfig.from_hf(str(tmp_path / "config.json"))
    assert folder == file and folder.name == tmp_path.name
    assert ModelConfig.from_hf(BASE, name="mine").name == "mine"
    with pytest.raises(UnknownNameError):
        ModelConfig.from_hf("no/such/folder")
    with pytest.raises(ConfigError):
        ModelConfig.from_hf(tmp_path / "nothing")


def test_a_changed_copy_must_stay_consistent() -> None:
    from dataclasses import replace

    model = get_model("meta-llama/Meta-Llama-3.1-8B")
    assert replace(model, name="x").layers == model.layers
    for change in ({"num_hidden_layers": 31}, {"head_dim": 64}, {"num_attention_heads": 16}, {"layers": ()}):
        with pytest.raises(ConfigError):
            replace(model, **change)


def test_a_changed_record_names_what_does_not_fit() -> None:
    record = get_model("meta-llama/Meta-Llama-3.1-8B").to_dict()
    layer = record["layers"][0]
    for changes, where in (
        ({"layers": 7}, "layers"),
        ({"layers": [7]}, "an object"),
        ({"layers": [{**layer, "layer_indices": "abc"}]}, "a list"),
        ({"layers": [{**layer, "layer_indices": [*range(31), 30]}]}, "each of 0..31 once"),
        ({"layers": [{**layer, "count": "many"}]}, "count"),
        ({"layers": [{k: v for k, v in layer.items() if k != "attention"}]}, "attention: found nothing"),
        ({"layers": [layer | {"colour": 1}]}, "layers.*colour.* unknown"),
        ({"hidden_size": None}, "hidden_size"),
    ):
        with pytest.raises(ConfigError, match=where):
            ModelConfig.from_dict(record | changes)


def test_questions_about_unknown_modules_list_the_known_ones() -> None:
    model = get_model("meta-llama/Meta-Llama-3.1-8B")
    with pytest.raises(UnknownNameError, match="gate_up"):
        model.module_dtype("gate_upp")
    with pytest.raises(UnknownNameError, match="ModelConfig"):
        ModelConfig(layers=model.layers, colour="red")


def test_values_too_long_to_print_are_said_to_be_so() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert short(10**5000) == "a int too long to print" and short(deep) == "a list too long to print"
    assert short("x" * 100) == "'" + "x" * 76 + "..." and short([1]) == "[1]"
