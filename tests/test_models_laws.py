"""Laws of models: additivity, sharding, round trips, and no foreign exception whatever the JSON."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import ConfigError, InputError, MfuroofError, MfuroofWarning
from mfuroof.models import ModelConfig, get_model, known_models
from mfuroof.models.detect.methods.table import METHODS
from mfuroof.models.expand import condense, expand_names
from mfuroof.models.families.table import READERS
from mfuroof.models.sharding import layers_per_stage, local_fraction, weight_bytes_per_rank

MODELS = known_models()
names = st.sampled_from(MODELS)
degrees = st.sampled_from([1, 2, 4, 8, 16])


@pytest.mark.parametrize("name", MODELS)
def test_round_trip(name: str) -> None:
    import json

    model = get_model(name)
    data = json.loads(json.dumps(model.to_dict(), allow_nan=False))
    assert ModelConfig.from_dict(data) == model == pickle.loads(pickle.dumps(model))
    assert hash(ModelConfig.from_dict(data)) == hash(model)


@given(st.integers(1, 6), st.sampled_from(["llama", "qwen3", "bloom", "gpt_oss"]))
def test_parameters_add_up_over_layers(n: int, kind: str) -> None:
    config = {
        "model_type": kind, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "vocab_size": 50,
        "num_local_experts": 4 if kind == "gpt_oss" else None, "num_experts_per_tok": 2 if kind == "gpt_oss" else None,
    }  # fmt: skip
    sizes = [ModelConfig.from_hf(config | {"num_hidden_layers": k}) for k in (n, n + 1, n + 2)]
    one, two, three = (m.total_params for m in sizes)
    assert three - two == two - one > 0
    assert sizes[2].weight_bytes - sizes[1].weight_bytes == sizes[1].weight_bytes - sizes[0].weight_bytes > 0
    assert sizes[2].kv_bytes_per_token * (n + 1) == sizes[1].kv_bytes_per_token * (n + 2)


@given(names, degrees, st.sampled_from([1, 2, 4]))
def test_shards_hold_the_whole_model(name: str, tp: int, pp: int) -> None:
    model = get_model(name)
    rank = weight_bytes_per_rank(model, tp, pp)
    assert rank * tp * pp >= model.weight_bytes * (1 - 1e-12)
    if tp == pp == 1:
        assert rank == pytest.approx(model.weight_bytes, rel=1e-12)
    assert rank <= weight_bytes_per_rank(model, 1, pp) * (1 + 1e-12)


@given(names, degrees)
def test_nothing_is_lost_where_nothing_is_replicated(name: str, tp: int) -> None:
    model = get_model(name)
    for spec in model.layers:
        for m in model.modules(spec):
            share = local_fraction(m, tp)
            assert 1 / tp <= share * (1 + 1e-12) and share <= 1
            if m.shard == "expert" or (m.shard in ("heads", "kv", "rows", "columns") and m.units % tp == 0):
                assert share * tp == pytest.approx(1)
            if m.shard == "none":
                assert share == 1


def test_kv_heads_are_replicated_when_there_are_too_few() -> None:
    model = get_model("meta-llama/Meta-Llama-3.1-8B")
    k = next(m for m in model.modules(model.layers[0]) if m.name == "self_attn.k_proj")
    assert [local_fraction(k, tp) for tp in (1, 2, 8, 16, 32)] == [1, 0.5, 0.125, 0.125, 0.125]


def test_experts_spread_over_expert_ranks() -> None:
    model = get_model("deepseek-ai/DeepSeek-V3")
    whole = model.weight_bytes
    experts = weight_bytes_per_rank(model) - weight_bytes_per_rank(model, 1, 1, 8, 8)
    assert experts == pytest.approx(7 / 8 * 653908770816 * (1 + 4 / 16384), rel=1e-9)
    assert weight_bytes_per_rank(model, 8, 1, 8) < whole / 7
    assert weight_bytes_per_rank(model, 8, 1, 8) == pytest.approx(weight_bytes_per_rank(model, 8, 1, 1))


@pytest.mark.parametrize("bad", [{"tp_size": 0}, {"tp_size": 1.5}, {"pp_size": 33}, {"ep_size": 3}, {"dp_size": -1}])
def test_impossible_degrees(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        weight_bytes_per_rank(get_model("meta-llama/Meta-Llama-3.1-8B"), **bad)


@given(st.integers(1, 200), st.integers(1, 40))
def test_stages(layers: int, stages: int) -> None:
    counts = layers_per_stage(layers, stages)
    if stages <= layers:
        assert len(counts) == stages and sum(counts) == layers and max(counts) - min(counts) <= 1


@given(
    st.lists(
        st.sampled_from([f"a.{i}.b.{j}.c{k}" for i in range(4) for j in range(3) for k in "xy"] + ["a", "a.1", "z*"])
    )
)
def test_name_lists_condense_and_expand(items: list[str]) -> None:
    assert set(expand_names(condense(items))) == set(items)


@given(st.randoms(use_true_random=False), names)
def test_detection_is_invariant_to_key_order(rng: Any, name: str) -> None:
    from mfuroof.models.registry import entry

    _, config, side = entry(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shuffled = ModelConfig.from_hf(_shuffled(config, rng), sidecar=_shuffled(side, rng), name=name)
    assert shuffled == get_model(name)


def _shuffled(value: Any, rng: Any) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {k: _shuffled(v, rng) for k, v in items}
    return value


# ---------------------------------------------------------------- fuzzing

KEYS = """hidden_size num_hidden_layers num_attention_heads num_key_value_heads head_dim intermediate_size vocab_size
tie_word_embeddings num_experts num_experts_per_tok moe_intermediate_size n_shared_experts first_k_dense_replace
moe_layer_freq mlp_only_layers decoder_sparse_step kv_lora_rank q_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim
sliding_window layer_types mlp_layer_types index_topk index_n_heads index_head_dim indexer_types torch_dtype dtype
text_config quantization_config quantization hidden_act attention_bias block_configs hybrid_override_pattern
layers_block_type linear_attn_config compress_ratios o_groups o_lora_rank hc_mult sparse_attention_config
linear_num_key_heads linear_num_value_heads linear_key_head_dim linear_value_head_dim mamba_num_heads mamba_head_dim
ssm_state_size n_groups global_head_dim attention_k_eq_v hybrid_layer_pattern num_kv_shared_layers expert_dtype
compress_rates moe_layers no_rope_layers _name_or_path use_sliding_window max_window_layers""".split()
BLOCK_KEYS = """quant_method bits w_bit group_size q_group_size zero_point sym desc_act dynamic lm_head config_groups ignore
kv_cache_scheme kv_cache_quant_algo quant_algo quantized_layers exclude_modules weight_block_size activation_scheme
expert_dtype moe_quant_algo load_in_4bit load_in_8bit bnb_4bit_quant_type quant_type quant_config nbits weights activations
num_codebooks nbits_per_codebook in_group_size config_for_layers forward_dtype global_quant_config layer_quant_config
modules_to_not_convert extra_config data_type act_bits num_bits module_quant_configs format modules_in_block_to_quantize
num_centroids vector_lens weight input_tensors dtype qscheme output_tensors targets input_activations type strategy
block_structure symmetric weight_quant_params default _type _data quantization""".split()
numbers = st.integers(-2, 9) | st.sampled_from([16, 64, 128, 4096, 2**31, 2**63, 10**400]) | st.floats()
words = st.sampled_from(["", "4", "fp8", "int4", "W4A16", "NVFP4", "model.layers.0.mlp", "re:(", "*", "full_attention", "M-E*", "gelu", "float", "group", "channel", "{0-3}", "a" * 200, *METHODS]) | st.text(max_size=6)  # fmt: skip
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


@given(st.sampled_from(sorted(METHODS)), blocks)
def test_every_method_survives_any_block(method: str, block: dict[str, Any]) -> None:
    model = _read({"model_type": "qwen3_moe", **WORKING, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
                   "quantization_config": {**block, "quant_method": method}})  # fmt: skip
    assert model is not None and model.weight_bytes > 0


@given(st.integers() | st.floats() | st.none() | st.lists(st.integers(), max_size=2) | st.text(max_size=20))
def test_any_source_gives_our_error(source: Any) -> None:
    assert _read(source) is None


@given(names, st.data())
def test_damaged_records_are_refused(name: str, data: st.DataObject) -> None:
    record = get_model(name).to_dict()
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(st.sampled_from([None, "x", -1.5, [], {}, [1]]))
    try:
        ModelConfig.from_dict(record)
    except ConfigError as error:
        assert str(error)
