"""Malformed or unknown precision: a warning that names key and value, then the next link of the chain."""

# ruff: noqa: E501 - one case a line reads best as a table
from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import pytest
from test_quantization_formats import BASE

from mfuroof.errors import ConfigError, MfuroofWarning
from mfuroof.models import ModelConfig

INF, NAN = float("inf"), float("nan")
GPTQ = {"quant_method": "gptq", "group_size": 128}


class Bad(NamedTuple):
    block: Any
    says: str  # must be in a warning
    bytes: float = 2.0  # nominal bytes a weight after falling through to the dtype


def groups(weights: Any, **more: Any) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": weights, **more}}}


BLOCKS = [
    # ---- no object
    Bad("fp8", "quantization_config = 'fp8'"),
    Bad(8, "quantization_config = 8"),
    Bad([], "quantization_config = []"),
    Bad(["gptq"], "quantization_config = ['gptq']"),
    Bad(True, "quantization_config = True"),
    Bad({}, "quantization_config = {}"),
    # ---- unknown or odd methods
    Bad({"quant_method": "frobnicate"}, "'frobnicate'"),
    Bad({"quant_method": "frobnicate", "bits": 4}, "'frobnicate'"),
    Bad({"quant_method": 7}, "quant_method = 7"),
    Bad({"quant_method": None}, "quant_method"),
    Bad({"quant_method": ""}, "quant_method"),
    Bad({"quant_method": ["gptq"]}, "['gptq']"),
    Bad({"something": "else"}, "something"),
    Bad({"quant_method": "gguf"}, "'gguf'"),
    # ---- bits
    Bad(GPTQ, "bits = None"),
    Bad({**GPTQ, "bits": None}, "bits = None"),
    Bad({**GPTQ, "bits": 0}, "bits = 0"),
    Bad({**GPTQ, "bits": -4}, "bits = -4"),
    Bad({**GPTQ, "bits": 128}, "bits = 128"),
    Bad({**GPTQ, "bits": 5}, "bits = 5"),
    Bad({**GPTQ, "bits": 2.5}, "bits = 2.5"),
    Bad({**GPTQ, "bits": 10**400}, "bits = "),
    Bad({**GPTQ, "bits": INF}, "bits = inf"),
    Bad({**GPTQ, "bits": NAN}, "bits = nan"),
    Bad({**GPTQ, "bits": True}, "bits = True"),
    Bad({**GPTQ, "bits": [4]}, "bits = [4]"),
    Bad({**GPTQ, "bits": {}}, "bits = {}"),
    Bad({**GPTQ, "bits": "abc"}, "bits = 'abc'"),
    Bad({**GPTQ, "bits": " 4"}, "bits = ' 4'"),
    Bad({**GPTQ, "bits": "4.0"}, "bits = '4.0'"),
    Bad({**GPTQ, "bits": ""}, "bits = ''"),
    Bad({**GPTQ, "bits": "4"}, "bits = '4'", 0.5),
    Bad({**GPTQ, "bits": "+4"}, "bits = '+4'", 0.5),
    Bad({**GPTQ, "bits": "04"}, "bits = '04'", 0.5),
    Bad({**GPTQ, "bits": "128"}, "bits = '128'"),
    Bad({"quant_method": "awq", "bits": 0}, "bits = 0"),
    Bad({"quant_method": "awq", "w_bit": "x"}, "w_bit = 'x'"),
    Bad({"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 99}}}, "nbits = 99"),
    Bad({"quant_method": "auto-round", "bits": 64}, "bits = 64"),
    Bad({"quant_method": "auto-round", "bits": 3, "data_type": "mx_fp"}, "bits = 3"),
    # ---- groups: the width still counts
    Bad({**GPTQ, "bits": 4, "dynamic": {"+:.*mlp.*": 8}}, "dynamic = {'+:.*mlp.*': 8}", 0.5),
    Bad({**GPTQ, "bits": 4, "dynamic": {"+:.*mlp.*": {"bits": 5}}}, "bits = 5", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": "abc"}, "group_size = 'abc'", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": 0}, "group_size = 0", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": -7}, "group_size = -7", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": [128]}, "group_size = [128]", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": 2.5}, "group_size = 2.5", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": NAN}, "group_size = nan", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": "128"}, "group_size = '128'", 0.5),
    Bad({**GPTQ, "bits": 4, "group_size": 2**60}, "group_size = 1152921504606846976", 0.5),
    # ---- 8-bit floats
    Bad({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size = [128]", 1.0),
    Bad({"quant_method": "fp8", "weight_block_size": [0, 128]}, "weight_block_size = [0, 128]", 1.0),
    Bad({"quant_method": "fp8", "weight_block_size": "128"}, "weight_block_size = '128'", 1.0),
    Bad({"quant_method": "fp8", "weight_block_size": [128, None]}, "weight_block_size", 1.0),
    Bad({"quant_method": "fp8", "activation_scheme": "sideways"}, "activation_scheme", 1.0),
    Bad({"quant_method": "fp8", "modules_to_not_convert": 7}, "modules_to_not_convert = 7", 1.0),
    Bad({"quant_method": "fp8", "ignored_layers": ["lm_head", 7, None]}, "ignored_layers = [7, None]", 1.0),
    # ---- compressed-tensors
    Bad({"quant_method": "compressed-tensors"}, "config_groups = None"),
    Bad({"quant_method": "compressed-tensors", "config_groups": {}}, "quant_method", 2.0),
    Bad({"quant_method": "compressed-tensors", "config_groups": []}, "config_groups = []"),
    Bad({"quant_method": "compressed-tensors", "config_groups": "W4A16"}, "config_groups = 'W4A16'"),
    Bad({"quant_method": "compressed-tensors", "config_groups": {"group_0": None}}, "config_groups.group_0 = None"),
    Bad({"quant_method": "compressed-tensors", "config_groups": {"group_0": 4}}, "config_groups.group_0 = 4"),
    Bad({"quant_method": "compressed-tensors", "config_groups": {"group_0": {}}}, "config_groups"),
    Bad(groups(None), "config_groups"),
    Bad({**groups({"num_bits": 4}), "format": "dense"}, "config_groups"),
    Bad(groups("int4"), "weights = 'int4'"),
    Bad(groups({"num_bits": 0}), "num_bits = 0"),
    Bad(groups({"num_bits": 128}), "num_bits = 128"),
    Bad(groups({"num_bits": "x"}), "num_bits = 'x'"),
    Bad(groups({"num_bits": "8", "type": "int", "strategy": "channel"}), "num_bits = '8'", 1.0),
    Bad(groups({"num_bits": 4, "type": "complex"}), "type = 'complex'"),
    Bad(groups({"num_bits": 5, "type": "float"}), "num_bits = 5"),
    Bad(groups({"num_bits": 8, "type": "int", "strategy": "nonsense"}), "strategy = 'nonsense'", 1.0),
    Bad(groups({"num_bits": 8, "type": "float", "strategy": "tensor"}, input_activations="yes"), "input_activations", 1.0),
    Bad(groups({"num_bits": 8, "type": "float", "strategy": "tensor"}, input_activations={"num_bits": 3}), "num_bits = 3", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "ignore": [None, 4]}, "ignore = [None, 4]", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "ignore": ["re:("]}, "ignore = 're:('", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "kv_cache_scheme": {"num_bits": 3}}, "kv_cache_scheme", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "kv_cache_scheme": 8}, "kv_cache_scheme = 8", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "kv_cache_scheme": {"num_bits": 16}}, "", 1.0),
    Bad({**groups({"num_bits": 8, "strategy": "channel"}), "kv_cache_scheme": {}}, "", 1.0),
    # ---- ModelOpt
    Bad({"quant_method": "modelopt"}, "quant_algo"),
    Bad({"quant_method": "modelopt", "quant_algo": "W2A2"}, "quant_algo = 'w2a2'"),
    Bad({"quant_method": "modelopt", "quant_algo": 4}, "quant_algo = 4"),
    Bad({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quant_algo = 'mixed_precision'"),
    Bad({"quant_algo": "MIXED_PRECISION", "quantized_layers": []}, "quantized_layers = []"),
    Bad({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.0.mlp.up_proj": {"quant_algo": "X"}}}, "quant_algo = 'X'"),
    Bad({"quant_algo": "MIXED_PRECISION", "quantized_layers": {"model.layers.0.mlp.up_proj": "FP8"}}, "quant_algo = None"),
    Bad({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP3"}, "kv_cache_quant_algo = 'FP3'", 1.0),
    Bad({"quant_method": "modelopt", "quant_algo": "FP8", "exclude_modules": {"a": 1}}, "exclude_modules", 1.0),
    # ---- the others
    Bad({"quant_method": "bitsandbytes"}, "load_in_4bit"),
    Bad({"quant_method": "bitsandbytes", "load_in_4bit": "yes"}, "load_in_4bit = 'yes'"),
    Bad({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp5"}, "fp5", 0.5),
    Bad({"quant_method": "hqq", "quant_config": 4}, "quant_config = 4", 0.5),
    Bad({"quant_method": "torchao"}, "quant_type = None"),
    Bad({"quant_method": "torchao", "quant_type": "int5_magic"}, "quant_type = 'int5_magic'"),
    Bad({"quant_method": "torchao", "quant_type": {"default": {"_type": 5}}}, "quant_type"),
    Bad({"quant_method": "quanto", "weights": "int5"}, "weights = 'int5'"),
    Bad({"quant_method": "quanto"}, "weights = None"),
    Bad({"quant_method": "aqlm", "num_codebooks": 0}, "nbits_per_codebook"),
    Bad({"quant_method": "aqlm", "num_codebooks": 99, "nbits_per_codebook": 16}, "bits a weight"),
    Bad({"quant_method": "quanto", "weights": "int4", "activations": "int3"}, "activations = 'int3'", 0.5),
    Bad({"quant_method": "vptq"}, "config_for_layers = None"),
    Bad({"quant_method": "vptq", "config_for_layers": {"model.layers.0.mlp.up_proj": {"vector_lens": [8], "num_centroids": [1]}}}, "gives no number of bits"),
    Bad({"quant_method": "higgs", "bits": 9}, "bits = 9"),
    Bad({"quant_method": "spqr", "bits": 0}, "bits = 0"),
    Bad({"quant_method": "gemma", "num_bits": 4, "module_quant_configs": {"mlp": {"num_bits": 0}}}, "num_bits = 0", 0.5),
    Bad({"quant_method": "vptq", "config_for_layers": {"model.layers.0.mlp.up_proj": 3}}, "config_for_layers"),
    Bad({"quant_method": "fp_quant", "forward_dtype": "int3"}, "forward_dtype = 'int3'"),
    Bad({"quant_method": "quark"}, "global_quant_config"),
    Bad({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "complex64"}}}, "weight"),
    Bad({"quant_method": "gemma", "num_bits": 0}, "num_bits = 0"),
    Bad({"quant_method": "mxfp4"}, "quantises no module"),
]  # fmt: skip


@pytest.mark.parametrize("bad", BLOCKS, ids=lambda b: repr(b.block)[:60])
def test_block_warns_and_falls_through(bad: Bad) -> None:
    if bad.block == {"quant_method": "compressed-tensors", "config_groups": {}}:
        bad = bad._replace(says="")  # no group, no complaint about one
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = ModelConfig.from_hf({**BASE, "quantization_config": bad.block}, name="plain")
    texts = [str(w.message) for w in caught if issubclass(w.category, MfuroofWarning)]
    assert len(texts) == len(caught)
    assert any(bad.says in t for t in texts) or not bad.says
    assert set(texts) == set(model.quantization.warnings)
    assert model.quantization.weight_bytes_nominal == bad.bytes
    assert math.isfinite(model.weight_bytes) and model.weight_bytes > 0


BROKEN = {"quant_method": "gptq", "bits": 0}
SIDECAR = {"bits": 8, "group_size": 128, "desc_act": False}


@pytest.mark.parametrize(
    ("sidecar", "name", "dtype", "source", "nominal"),
    [
        (SIDECAR, "m-w4a16", "bfloat16", "sidecar", 1.0),
        (None, "m-w4a16", "bfloat16", "name", 0.5),
        (None, "m", "bfloat16", "dtype", 2.0),
        (None, "m", "float32", "dtype", 4.0),
        (None, "m", None, "default", 2.0),
        (BROKEN, "m-FP8", None, "name", 1.0),
        (BROKEN, "m", None, "default", 2.0),
    ],
)
@pytest.mark.parametrize("precedence", ["config", "sidecar"])
@pytest.mark.filterwarnings("ignore::mfuroof.errors.MfuroofWarning")
def test_chain_order(sidecar: Any, name: str, dtype: str | None, source: str, nominal: float, precedence: str) -> None:
    config = {**BASE, "torch_dtype": dtype, "quantization_config": BROKEN}
    model = ModelConfig.from_hf(config, name=name, sidecar=sidecar, quantization_precedence=precedence)
    assert (model.quantization.source, model.quantization.weight_bytes_nominal) == (source, nominal)


@pytest.mark.parametrize("value", ["float3", "", 7, [], {}, True])
def test_unknown_dtype_warns_and_means_two_bytes(value: Any) -> None:
    with pytest.warns(MfuroofWarning, match="torch_dtype"):
        model = ModelConfig.from_hf({**BASE, "torch_dtype": value}, name="m")
    assert model.weight_bytes == 2 * model.total_params


@pytest.mark.parametrize("config", [[], "[]", 5, None, 1.5])
def test_only_what_is_no_object_raises(config: Any, tmp_path: Any) -> None:
    if isinstance(config, str):
        file = tmp_path / "config.json"
        file.write_text(config)
        config = file
    with pytest.raises(ConfigError):
        ModelConfig.from_hf(config)


@pytest.mark.parametrize("text", ["", "{", "nonsense", '"text"', "[1]", "\x00", '{"a": ' * 3000])
def test_unreadable_files_raise_and_name_the_file(text: str, tmp_path: Any) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        ModelConfig.from_hf(tmp_path)


@pytest.mark.filterwarnings("ignore::mfuroof.errors.MfuroofWarning")
def test_infinity_in_a_config_is_read(tmp_path: Any) -> None:
    import json

    (tmp_path / "config.json").write_text(json.dumps({**BASE, "time_step_limit": [0.0, INF]}))
    assert ModelConfig.from_hf(tmp_path).total_params > 0
