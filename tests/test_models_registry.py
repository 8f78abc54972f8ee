"""Built-in models: names, aliases, and that nothing else is needed to use them."""

from __future__ import annotations

import json
from importlib.resources import files

import pytest

from mfuroof.errors import UnknownNameError
from mfuroof.models import ModelConfig, get_model, known_models
from mfuroof.models.registry import resolve

ALIASES = {
    "Meta-Llama-3.1-8B": "meta-llama/Meta-Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Meta-Llama-3.1-8B",
    "META_LLAMA_3.1_70b": "meta-llama/Meta-Llama-3.1-70B",
    "Llama-3.3-70B-Instruct": "meta-llama/Meta-Llama-3.1-70B",
    "meta-llama/Llama-2-7b-chat-hf": "meta-llama/Llama-2-7b-hf",
    "Llama-2-7B": "meta-llama/Llama-2-7b-hf",
    "llama-2-13b": "meta-llama/Llama-2-13b-hf",
    "Llama-2-70B-hf": "meta-llama/Llama-2-70b-hf",
    "CodeLlama-34B": "codellama/CodeLlama-34b-hf",
    "codellama/CodeLlama-34b-Instruct-hf": "codellama/CodeLlama-34b-hf",
    "Yi-34B": "01-ai/Yi-34B",
    "Yi-34B-Chat": "01-ai/Yi-34B",
    "Mistral-Nemo": "mistralai/Mistral-Nemo-Base-2407",
    "mistralai/Mistral-Nemo-Instruct-2407": "mistralai/Mistral-Nemo-Base-2407",
    "Mixtral-8x7B": "mistralai/Mixtral-8x7B-v0.1",
    "mistralai/Mixtral-8x7B-Instruct-v0.1": "mistralai/Mixtral-8x7B-v0.1",
    "BLOOM-176B": "bigscience/bloom",
    "Qwen2.5-7B": "Qwen/Qwen2.5-7B",
    "Qwen/Qwen2.5-7B-Instruct": "Qwen/Qwen2.5-7B",
    "qwen3-32b": "Qwen/Qwen3-32B",
    "deepseek-v3": "deepseek-ai/DeepSeek-V3",
    "gpt-oss-120b": "openai/gpt-oss-120b",
}


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    assert resolve(alias) == name
    assert get_model(alias) is get_model(name)


@pytest.mark.parametrize("name", known_models())
def test_ids_and_short_names(name: str) -> None:
    model = get_model(name)
    assert model.name == name == resolve(name.upper()) == resolve(name.lower())
    assert ModelConfig.from_hf(name) == model
    assert not model.quantization.warnings
    assert model.name in repr(model) and ("name", name) in model.describe()


def test_there_are_enough() -> None:
    assert len(known_models()) >= 97
    assert len({resolve(n.rpartition("/")[2]) for n in known_models()}) == len(known_models())


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("lama-3.1-8b", "Llama-3.1-8B"), ("Qwen/Qwen3-33B", "Qwen3-32B"), ("nobody/Qwen3-32B", "Qwen3-32B")],
)
def test_unknown_names_suggest_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UnknownNameError, match=near):
        get_model(wrong)
    with pytest.raises(UnknownNameError):
        ModelConfig.from_hf(wrong)


@pytest.mark.parametrize("odd", ["", " ", "/", "a" * 5000, "\x00", "-instruct"])
def test_odd_names(odd: str) -> None:
    with pytest.raises(UnknownNameError):
        get_model(odd)
    if odd not in ("/", "", " "):
        with pytest.raises(UnknownNameError):
            ModelConfig.from_hf(odd)


def test_files_name_their_source_and_are_small() -> None:
    sizes = 0
    for file in files("mfuroof.models").joinpath("data").iterdir():
        text = file.read_text(encoding="utf-8")
        sizes += len(text)
        assert json.loads(text)["source"]
    assert sizes < 200_000
