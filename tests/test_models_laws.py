"""Laws of models: additivity, sharding, round trips, and no foreign exception whatever the JSON."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError
from mfuroof.models import ModelConfig, get_model, known_models
from mfuroof.models.expand import condense, expand_names
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
