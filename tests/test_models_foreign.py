"""What is no decoder-only transformer is refused in one clear line; and one mistake makes one complaint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mfuroof.batch import StepBatch
from mfuroof.errors import ConfigError, InputError, UnknownNameError
from mfuroof.models import ModelConfig
from mfuroof.models.families.foreign import FOREIGN
from mfuroof.models.families.table import READERS
from mfuroof.parallel import Parallel

LLAMA = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
ODD = LLAMA | {"model_type": "never_heard_of"}
BERT = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": 768,
    "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12, "vocab_size": 30522,
    "position_embedding_type": "absolute", "type_vocab_size": 2,
}  # fmt: skip
T5 = {
    "architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "d_ff": 3072, "d_kv": 64, "d_model": 768,
    "is_encoder_decoder": True, "num_heads": 12, "num_layers": 12, "vocab_size": 32128, "feed_forward_proj": "relu",
}  # fmt: skip
WHISPER = {
    "architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper", "d_model": 1280,
    "activation_function": "gelu", "decoder_layers": 32, "decoder_attention_heads": 20, "encoder_layers": 32,
    "encoder_ffn_dim": 5120, "is_encoder_decoder": True, "num_hidden_layers": 32, "vocab_size": 51866,
}  # fmt: skip
MAMBA = {
    "architectures": ["MambaForCausalLM"], "model_type": "mamba", "hidden_size": 2560, "intermediate_size": 5120,
    "num_hidden_layers": 64, "state_size": 16, "conv_kernel": 4, "time_step_rank": 160, "vocab_size": 50280,
    "hidden_act": "silu", "expand": 2,
}  # fmt: skip
RWKV = {
    "architectures": ["RwkvForCausalLM"], "model_type": "rwkv", "attention_hidden_size": 4096, "hidden_size": 4096,
    "intermediate_size": 16384, "num_hidden_layers": 32, "rescale_every": 6, "vocab_size": 50277,
}  # fmt: skip
MINIMAX = {
    "model_type": "minimax", "architectures": ["MiniMaxForCausalLM"], "hidden_size": 6144, "intermediate_size": 9216,
    "num_attention_heads": 64, "num_key_value_heads": 8, "num_hidden_layers": 80, "vocab_size": 200064,
    "num_local_experts": 32, "num_experts_per_tok": 2, "attn_type_list": [0, 0, 0, 0, 0, 0, 0, 1] * 10,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (BERT, "bert is an encoder"),
        (T5, "t5 is an encoder-decoder"),
        (WHISPER, "whisper is an encoder-decoder"),
        (MAMBA, "mamba is a state-space"),
        (RWKV, "rwkv is a state-space"),
        ({"model_type": "vl", "text_config": T5}, "t5 is"),
        (ODD | {"architectures": ["OddForMaskedLM"]}, "architectures.*OddForMaskedLM"),
        (ODD | {"is_encoder_decoder": True}, "is_encoder_decoder"),
        (LLAMA | {"is_encoder_decoder": True}, "is_encoder_decoder"),
        (LLAMA | {"add_cross_attention": True}, "add_cross_attention"),
        (MINIMAX, "attn_type_list.*nothing reads"),
        (MINIMAX | {"model_type": "minimax_m2"}, "attn_type_list.*nothing reads"),
        (ODD | {"ssm_cfg": {"layer": "Mamba2"}}, "ssm_cfg"),
        (ODD | {"d_state": 16}, "d_state"),
        (ODD | {"layers_block_type": ["linear"] * 4}, "layers_block_type"),
        (ODD | {"block_types": ["recurrent"]}, "block_types"),
        (ODD | {"attention_layers": ["global", "local"] * 2}, "attention_layers"),
        (ODD | {"layer_types": ["linear_attention"] * 4}, "layer_types"),
        (ODD | {"rwkv_mode": "v7"}, "rwkv_mode"),
        (ODD | {"ffn_config": {"ffn_hidden_size": 8}}, "ffn_config"),
    ],
)
def test_no_decoder_is_refused_in_one_line(config: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        ModelConfig.from_hf(config)
    assert "\n" not in str(caught.value)


def test_no_type_is_both_read_and_foreign() -> None:
    assert not READERS.keys() & FOREIGN.keys()


def test_a_list_of_softmax_layers_changes_nothing() -> None:
    changed = LLAMA | {"attn_type_list": [1, 1, 1, 1]}
    assert ModelConfig.from_hf(changed) == ModelConfig.from_hf(LLAMA)


def test_a_known_decoder_under_a_head_for_classes_is_read() -> None:
    changed = LLAMA | {"architectures": ["LlamaForSequenceClassification"], "is_encoder_decoder": False}
    assert ModelConfig.from_hf(changed) == ModelConfig.from_hf(LLAMA)


MIXTURE = {"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64}


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("hidden_size", {"hidden_size": -1}),
        ("num_attention_heads", {"num_attention_heads": None}),
        ("num_attention_heads", {"num_attention_heads": "8"}),
        ("num_key_value_heads", {"num_key_value_heads": -2}),
        ("intermediate_size", {"intermediate_size": -512}),
        ("num_hidden_layers", {"num_hidden_layers": 0, "layer_types": ["full_attention"] * 4}),
        ("num_hidden_layers", MIXTURE | {"num_hidden_layers": None, "mlp_only_layers": [3]}),
        ("num_experts", MIXTURE | {"num_experts": -1}),
        ("moe_layer_freq", MIXTURE | {"moe_layer_freq": [1, 0]}),
        ("num_attention_heads", {"model_type": "gpt2", "num_attention_heads": 0}),
        ("hidden_size", {"model_type": "falcon", "hidden_size": 0}),
    ],
)
def test_only_the_cause_is_named(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_hf(LLAMA | changes)
    assert [p.where for p in caught.value.problems] == [key]


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "num_attention_heads"),
        ("nvidia/Llama-3_3-Nemotron-Super-49B-v1", "num_hidden_layers"),
        ("deepseek-ai/DeepSeek-V4-Pro", "num_attention_heads"),
        ("deepseek-ai/DeepSeek-V4-Pro", "num_hidden_layers"),
        ("google/gemma-4-26B-A4B", "num_hidden_layers"),
        ("Qwen/Qwen3.5-27B", "num_hidden_layers"),
        ("moonshotai/Kimi-K3", "num_hidden_layers"),
        ("XiaomiMiMo/MiMo-V2-Flash", "num_attention_heads"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "num_attention_heads"),
    ],
)
def test_only_the_cause_is_named_in_a_family_of_its_own(name: str, key: str) -> None:
    from mfuroof.models.hf import merge_text_config
    from mfuroof.models.registry import entry

    config = merge_text_config(entry(name)[1])
    with pytest.raises(ConfigError) as caught:
        ModelConfig.from_hf(config | {key: -1})
    assert [p.where for p in caught.value.problems] == [key]


@pytest.mark.parametrize(
    "path", ["/nonexist/config.json", "/nonexist", "./x.json", "../nonexist", "nonexist.json", "~/nonexist/x"]
)
def test_a_path_that_is_not_there_is_no_unknown_model(path: str) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        ModelConfig.from_hf(path)
    with pytest.raises(UnknownNameError):
        ModelConfig.from_hf("nonexist/model")


GPT2 = {
    "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_ctx": 1024,
    "n_embd": 768, "n_head": 12, "n_inner": None, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257,
}  # fmt: skip
FALCON_7B = {
    "alibi": False, "architectures": ["FalconForCausalLM"], "bias": False, "hidden_size": 4544, "model_type": "falcon",
    "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71, "num_hidden_layers": 32,
    "parallel_attn": True, "vocab_size": 65024,
}  # fmt: skip
FALCON_40B = FALCON_7B | {
    "hidden_size": 8192, "multi_query": False, "new_decoder_architecture": True, "num_attention_heads": 128,
    "num_hidden_layers": 60, "num_kv_heads": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "params", "kv_heads"),
    [  # parameters as counted in the published checkpoints; the LM head is the embedding
        (GPT2, 124_439_808, 12),
        (FALCON_7B, 6_921_720_704, 1),
        (FALCON_40B, 41_303_293_952, 8),
    ],
)
def test_a_silent_mlp_is_four_hidden_sizes_wide(config: dict[str, Any], params: int, kv_heads: int) -> None:
    model = ModelConfig.from_hf(config)
    assert model.layers[0].mlp.intermediate_size == 4 * model.hidden_size
    assert (model.total_params, model.num_key_value_heads) == (params, kv_heads)


def test_a_written_width_wins() -> None:
    assert ModelConfig.from_hf(GPT2 | {"n_inner": 512}).layers[0].mlp.intermediate_size == 512
    wide = ModelConfig.from_hf(FALCON_7B | {"ffn_hidden_size": 1000, "multi_query": False, "num_kv_heads": 7})
    assert (wide.layers[0].mlp.intermediate_size, wide.num_key_value_heads) == (1000, 71)


def test_a_text_is_shown_with_its_quotes_and_a_boolean_is_no_count() -> None:
    with pytest.raises(InputError, match="tp_size: found '2', expected an integer"):
        Parallel(tp_size="2")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="decode_batch: found True"):
        StepBatch.uniform(decode_batch=True, decode_context=8)
    with pytest.raises(InputError, match=r"prefill_batch: found (np\.)?True"):
        StepBatch.uniform(prefill_batch=np.True_, prefill_new_tokens=8)
    assert StepBatch.uniform(prefill_batch=1, prefill_new_tokens=8, emits=False).emits.tolist() == [0]
    assert len(StepBatch.uniform(prefill_batch=1, prefill_new_tokens=8, emits=np.array([True, False]))) == 2
