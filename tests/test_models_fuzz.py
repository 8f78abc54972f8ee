"""No foreign exception whatever the JSON: a model or an error of ours, and warnings of our class only."""

# ruff: noqa: SIM905 - lists of keys read best as text
from __future__ import annotations

import contextlib
import warnings
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import ConfigError, MfuroofError, MfuroofWarning
from mfuroof.models import ModelConfig, get_model, known_models
from mfuroof.models.detect.methods.table import METHODS
from mfuroof.models.families.table import READERS

names = st.sampled_from(known_models())

KEYS = """
hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size
tie_word_embeddings num_experts num_experts_per_tok moe_intermediate_size n_shared_experts first_k_dense_replace
moe_layer_freq mlp_only_layers decoder_sparse_step kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim
v_head_dim sliding_window layer_types mlp_layer_types index_topk index_n_heads index_head_dim indexer_types
torch_dtype dtype text_config quantization_config quantization hidden_act attention_bias block_configs
hybrid_override_pattern layers_block_type linear_attn_config compress_ratios o_groups o_lora_rank hc_mult
sparse_attention_config linear_num_key_heads linear_num_value_heads linear_key_head_dim linear_value_head_dim
mamba_num_heads mamba_head_dim ssm_state_size n_groups global_head_dim attention_k_eq_v hybrid_layer_pattern
num_kv_shared_layers expert_dtype compress_rates moe_layers no_rope_layers _name_or_path use_sliding_window
max_window_layers
""".split()
BLOCK_KEYS = """
quant_method bits w_bit group_size q_group_size zero_point sym desc_act dynamic lm_head config_groups ignore
kv_cache_scheme kv_cache_quant_algo quant_algo quantized_layers exclude_modules weight_block_size activation_scheme
expert_dtype moe_quant_algo load_in_4bit load_in_8bit bnb_4bit_quant_type quant_type quant_config nbits weights
activations num_codebooks nbits_per_codebook in_group_size config_for_layers forward_dtype global_quant_config
layer_quant_config modules_to_not_convert extra_config data_type act_bits num_bits module_quant_configs format
modules_in_block_to_quantize num_centroids vector_lens weight input_tensors dtype qscheme output_tensors targets
input_activations type strategy block_structure symmetric weight_quant_params default _type _data quantization
""".split()
numbers = st.integers(-2, 9) | st.sampled_from([16, 64, 128, 4096, 2**31, 2**63, 10**400]) | st.floats()
ODD = "4 fp8 int4 W4A16 NVFP4 model.layers.0.mlp re:( * full_attention M-E* gelu float group channel {0-3}".split()
words = st.sampled_from(["", "a" * 200, *ODD, *METHODS]) | st.text(max_size=6)
leaves = st.none() | st.booleans() | numbers | words
json_values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(BLOCK_KEYS) | words, inner, max_size=5),
    max_leaves=12,
)
blocks = st.dictionaries(st.sampled_from(BLOCK_KEYS), json_values, max_size=6)
WORKING = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
    "intermediate_size": 96,
}  # fmt: skip


def _read(config: Any, **more: Any) -> ModelConfig | None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model = ModelConfig.from_hf(config, **more)
        except MfuroofError:
            model = None
    assert all(issubclass(w.category, MfuroofWarning) for w in caught)
    return model


@given(
    st.sampled_from(sorted(READERS)),
    st.dictionaries(st.sampled_from(KEYS) | words, json_values, max_size=12),
    st.booleans(),
)
def test_any_json_gives_a_model_or_our_error(kind: str, config: dict[str, Any], working: bool) -> None:
    model = _read({"model_type": kind, **(WORKING if working else {}), **config})
    if model is not None:
        assert model.total_params >= model.active_params > 0
        assert 0 < model.weight_bytes < float("inf")
        assert repr(model) and model.describe()
        assert ModelConfig.from_dict(model.to_dict()) == model


@given(blocks | json_values, blocks | st.none(), st.sampled_from(["config", "sidecar"]))
def test_any_quantisation_block_is_survived(block: Any, sidecar: Any, precedence: str) -> None:
    config = {"model_type": "llama", **WORKING, "quantization_config": block}
    model = _read(config, sidecar=sidecar, quantization_precedence=precedence)
    assert model is not None
    assert 0 < model.quantization.weight_bytes_effective < 100
    assert 0 < model.quantization.kv_bytes_per_element <= 4


MIXTURE = {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


@given(st.sampled_from(sorted(METHODS)), blocks)
def test_every_method_survives_any_block(method: str, block: dict[str, Any]) -> None:
    model = _read({**WORKING, **MIXTURE, "quantization_config": {**block, "quant_method": method}})
    assert model is not None and model.weight_bytes > 0


@given(st.integers() | st.floats() | st.none() | st.lists(st.integers(), max_size=2) | st.text(max_size=20))
def test_any_source_gives_our_error(source: Any) -> None:
    assert _read(source) is None


@given(names, st.data())
def test_damaged_records_are_refused(name: str, data: st.DataObject) -> None:
    record = get_model(name).to_dict()
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(st.sampled_from([None, "x", -1.5, [], {}, [1]]))
    with contextlib.suppress(ConfigError):
        ModelConfig.from_dict(record)
