"""Precision from a model's name, the fourth link of the chain."""

from __future__ import annotations

import pytest
from test_quantization_formats import BASE

from mfuroof.models import ModelConfig

NAMES = [
    ("Llama-3.1-8B", None),
    ("org/Model-7B-Instruct", None),
    ("w4a16", 0.515625),
    ("RedHatAI/Meta-Llama-3.1-8B-quantized.w4a16", 0.515625),
    ("org/Model-W4A16-G128", 0.515625),
    ("model.w8a8", 1 + 2 / 4096),
    ("model-w8a16", 1 + 2 / 4096),
    ("model-w8a8-fp8", 1.0),
    ("model_w4a8", 0.515625),
    ("Model-W4A8-FP8", 0.515625),
    ("model-w3a16", 0.375 + 2 / 128),
    ("model-w16a16", None),
    ("model-w99a16", None),
    ("model-w0a16", None),
    ("modelw4a16", None),
    ("model-w4a16x", None),
    ("org/Qwen3-8B-FP8", 1.0),
    ("Qwen3-32B-FP8-Static-PerTensor", 1.0),
    ("Qwen3-8B-fp8-dynamic", 1.0),
    ("Qwen3-8B-FP8-block", 1 + 4 / 16384),
    ("fp80", None),
    ("nvidia/Llama-3.1-8B-NVFP4", 0.5625),
    ("amd/Model-MXFP4-Preview", 0.53125),
    ("org/Model-MXFP8", 1.03125),
    ("TheBloke/Llama-2-7B-GPTQ", 0.51953125),
    ("Qwen2.5-7B-Instruct-GPTQ-Int4", 0.51953125),
    ("Qwen2.5-7B-Instruct-GPTQ-Int8", 1 + 3 / 128),
    ("TheBloke/Llama-2-7B-AWQ", 0.51953125),
    ("Llama-3-8B-AWQ-4bit", 0.51953125),
    ("unsloth/llama-3-8b-bnb-4bit", 0.5625),
    ("model-nf4", 0.5625),
    ("model-int8", 1.0),
    ("model-int4", 0.515625),
    ("model-4bit", 0.515625),
    ("mlx-community/model-8bit", 1.0),
    ("folder/model.Q4_K_M.gguf", 4.84 / 8),
    ("model-Q8_0.gguf", 8.5 / 8),
    ("model-q5_k_m", 5.68 / 8),
    ("model-Q6_K", 6.5625 / 8),
    ("model-IQ4_XS", 4.25 / 8),
]


@pytest.mark.parametrize(("name", "effective"), NAMES)
def test_name(name: str, effective: float | None) -> None:
    model = ModelConfig.from_hf(BASE, name=name)
    q = model.quantization
    assert q.source == ("dtype" if effective is None else "name")
    assert q.weight_bytes_effective == pytest.approx(2.0 if effective is None else effective, rel=1e-9)


def test_gguf_quantises_embeddings_too() -> None:
    model = ModelConfig.from_hf(BASE, name="m-Q4_K_M")
    matrices = model.total_params - model.params_by_component()["norm"]
    assert model.weight_bytes == pytest.approx(matrices * 4.84 / 8 + (model.total_params - matrices) * 2)


def test_config_wins_over_name() -> None:
    block = {"quant_method": "gptq", "bits": 8, "group_size": 128}
    model = ModelConfig.from_hf({**BASE, "quantization_config": block}, name="m-w4a16")
    assert (model.quantization.source, model.quantization.weight_bits) == ("config", 8)


def test_name_or_path_is_the_name_where_none_is_given() -> None:
    model = ModelConfig.from_hf({**BASE, "_name_or_path": "org/m-FP8"})
    assert (model.name, model.quantization.source) == ("org/m-FP8", "name")
