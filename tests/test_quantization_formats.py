"""Every checkpoint format: what a well-formed block means, as bytes, bits, class and KV dtype.

Expected values are worked out here from bits, group, scale and zero point, not by the code under test. Every linear
layer of the model has 4096 inputs, so that a scale per output row adds scale / 4096 bytes a weight.
"""

# ruff: noqa: E501 - one case a line reads best as a table
from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import pytest

from mfuroof.models import ModelConfig

BASE = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 4096,
    "num_hidden_layers": 2,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 1000,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
ROW = 1 / 4096


class Case(NamedTuple):
    name: str
    block: dict[str, Any]
    method: str
    bits: float
    group: int | None
    nominal: float
    effective: float
    compute: str
    weight_only: bool
    kv: float = 2.0
    extra: dict[str, Any] = {}  # noqa: RUF012 - a default that nobody writes to


def ct(weights: dict[str, Any] | None, act: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    group = {"weights": weights, "input_activations": act, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, "ignore": ["lm_head"], **more}


def preset(name: str) -> dict[str, Any]:
    return {"quant_method": "compressed-tensors", "config_groups": {name: ["Linear"]}, "ignore": ["lm_head"]}


def mo(algo: str, **more: Any) -> dict[str, Any]:
    return {"quant_method": "modelopt", "quant_algo": algo, "exclude_modules": ["lm_head"], **more}


def ao(kind: str, **data: Any) -> dict[str, Any]:
    return {"quant_method": "torchao", "quant_type": {"default": {"_type": kind, "_data": data}}}


def quark(weight: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    body = {"weight": weight, "input_tensors": inputs}
    return {"quant_method": "quark", "global_quant_config": body, "exclude": ["lm_head"], **more}


I8, F8, F4 = {"num_bits": 8, "type": "int"}, {"num_bits": 8, "type": "float"}, {"num_bits": 4, "type": "float"}
VPTQ = [*(f"self_attn.{p}_proj" for p in "qkvo"), *(f"mlp.{p}_proj" for p in ("gate", "up", "down"))]

CASES = [
    # ---- GPTQ: scale 2 bytes and a packed zero point per group, even where symmetric
    Case("gptq-4-128", {"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq", 4, 128, 0.5, 0.5 + 2 / 128 + 0.5 / 128, "bf16", True),
    Case("gptq-4-128-sym", {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": True}, "gptq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("gptq-4-64", {"quant_method": "gptq", "bits": 4, "group_size": 64}, "gptq", 4, 64, 0.5, 0.5390625, "bf16", True),
    Case("gptq-4-32", {"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq", 4, 32, 0.5, 0.578125, "bf16", True),
    Case("gptq-8-128", {"quant_method": "gptq", "bits": 8, "group_size": 128}, "gptq", 8, 128, 1.0, 1 + 3 / 128, "bf16", True),
    Case("gptq-3-128", {"quant_method": "gptq", "bits": 3, "group_size": 128}, "gptq", 3, 128, 0.375, 0.375 + 2.375 / 128, "bf16", True),
    Case("gptq-2-64", {"quant_method": "gptq", "bits": 2, "group_size": 64}, "gptq", 2, 64, 0.25, 0.25 + 2.25 / 64, "bf16", True),
    Case("gptq-channel", {"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq", 4, -1, 0.5, 0.5 + 2.5 * ROW, "bf16", True),
    Case("gptq-upper", {"quant_method": "GPTQ", "bits": 4, "group_size": 128}, "gptq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("gptq-no-method", {"bits": 4, "group_size": 128, "desc_act": False, "sym": True}, "gptq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("gptq-marlin", {"quant_method": "gptq_marlin", "bits": 4, "group_size": 128}, "gptq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("gptq-float-bits", {"quant_method": "gptq", "bits": 4.0, "group_size": 128.0}, "gptq", 4, 128, 0.5, 0.51953125, "bf16", True),
    # ---- AWQ
    Case("awq", {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}, "awq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("awq-old-keys", {"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}, "awq", 4, 64, 0.5, 0.5390625, "bf16", True),
    Case("awq-defaults", {"quant_method": "awq"}, "awq", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("awq-sym", {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": False}, "awq", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("awq-no-method", {"w_bit": 4, "q_group_size": 128, "zero_point": True}, "awq", 4, 128, 0.5, 0.51953125, "bf16", True),
    # ---- AutoRound
    Case("autoround", {"quant_method": "auto-round", "bits": 4, "group_size": 128, "sym": True, "data_type": "int"}, "auto-round", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("autoround-old", {"quant_method": "intel/auto-round", "bits": 4, "group_size": 128}, "auto-round", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("autoround-defaults", {"quant_method": "auto-round"}, "auto-round", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("autoround-mx4", {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp", "act_bits": 4}, "auto-round", 4, 32, 0.5, 0.53125, "fp4", False),
    Case("autoround-mx4-wo", {"quant_method": "auto-round", "bits": 4, "group_size": 32, "data_type": "mx_fp"}, "auto-round", 4, 32, 0.5, 0.53125, "bf16", True),
    Case("autoround-mx8", {"quant_method": "auto-round", "bits": 8, "group_size": 32, "data_type": "mx_fp", "act_bits": 8}, "auto-round", 8, 32, 1.0, 1.03125, "fp8", False),
    Case("autoround-fp8-block", {"quant_method": "auto-round", "bits": 8, "group_size": [128, 128], "data_type": "fp", "act_bits": 8}, "auto-round", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("autoround-nvfp4", {"quant_method": "auto-round", "bits": 4, "group_size": 16, "data_type": "nv_fp", "act_bits": 4}, "auto-round", 4, 16, 0.5, 0.5625, "fp4", False),
    # ---- FP8
    Case("fp8-block", {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic", "fmt": "e4m3"}, "fp8", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("fp8-tensor", {"quant_method": "fp8", "activation_scheme": "static"}, "fp8", 8, None, 1.0, 1.0, "fp8", False),
    Case("fp8-upper", {"quant_method": "FP8"}, "fp8", 8, None, 1.0, 1.0, "fp8", False),
    Case("fp8-mx", {"quant_method": "fp8", "weight_block_size": [1, 32]}, "fp8", 8, 32, 1.0, 1.03125, "fp8", False),
    Case("fp8-64", {"quant_method": "fp8", "weight_block_size": [64, 64]}, "fp8", 8, 4096, 1.0, 1 + 4 / 4096, "fp8", False),
    Case("fp8-no-method", {"activation_scheme": "dynamic", "weight_block_size": [128, 128]}, "fp8", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("mxfp8", {"quant_method": "mxfp8", "weight_block_size": [1, 32]}, "mxfp8", 8, 32, 1.0, 1.03125, "fp8", False),
    Case("fbgemm", {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": []}, "fbgemm_fp8", 8, -1, 1.0, 1 + 4 * ROW, "fp8", False),
    # ---- compressed-tensors
    Case("ct-w4a16", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}, format="pack-quantized"), "compressed-tensors", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("ct-w4a16-asym", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": False}, format="pack-quantized"), "compressed-tensors", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("ct-w4-g32", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}), "compressed-tensors", 4, 32, 0.5, 0.5625, "bf16", True),
    Case("ct-w3", ct({"num_bits": 3, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}), "compressed-tensors", 3, 128, 0.375, 0.390625, "bf16", True),
    Case("ct-w8-g128", ct({"num_bits": 8, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}), "compressed-tensors", 8, 128, 1.0, 1.015625, "bf16", True),
    Case("ct-int4-unpacked", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}, format="int-quantized"), "compressed-tensors", 8, 128, 1.0, 1.015625, "bf16", True),
    Case("ct-w8a8", ct({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}, I8 | {"dynamic": True, "strategy": "token"}, format="int-quantized"), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "int8", False),
    Case("ct-w8a16", ct({"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True}), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "bf16", True),
    Case("ct-fp8-dynamic", ct({"num_bits": 8, "type": "float", "strategy": "channel"}, F8 | {"dynamic": True}, format="float-quantized"), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "fp8", False),
    Case("ct-fp8-static", ct({"num_bits": 8, "type": "float", "strategy": "tensor"}, F8), "compressed-tensors", 8, None, 1.0, 1.0, "fp8", False),
    Case("ct-fp8-block", ct({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}, F8), "compressed-tensors", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("ct-fp8-wo", ct({"num_bits": 8, "type": "float", "strategy": "tensor"}), "compressed-tensors", 8, None, 1.0, 1.0, "bf16", True),
    Case("ct-nvfp4", ct({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}, F4 | {"group_size": 16}, format="nvfp4-pack-quantized"), "compressed-tensors", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("ct-nvfp4a16", ct({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}), "compressed-tensors", 4, 16, 0.5, 0.5625, "bf16", True),
    Case("ct-mxfp4", ct({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32, "scale_dtype": "torch.uint8"}, F4 | {"group_size": 32}), "compressed-tensors", 4, 32, 0.5, 0.53125, "fp4", False),
    Case("ct-mxfp4a16", ct({"num_bits": 4, "type": "float", "strategy": "group", "group_size": 32}), "compressed-tensors", 4, 32, 0.5, 0.53125, "bf16", True),
    Case("ct-mxfp6", ct({"num_bits": 6, "type": "float", "strategy": "group", "group_size": 32}), "compressed-tensors", 6, 32, 0.75, 0.78125, "bf16", True),
    Case("ct-mxfp8", ct({"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32}, F8 | {"group_size": 32}), "compressed-tensors", 8, 32, 1.0, 1.03125, "fp8", False),
    Case("ct-w4a8-int", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}, I8), "compressed-tensors", 4, 128, 0.5, 0.515625, "int8", False),
    Case("ct-w4afp8", ct({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}, F8), "compressed-tensors", 4, 128, 0.5, 0.515625, "fp8", False),
    Case("ct-default-bits", ct({"strategy": "channel"}), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "bf16", True),
    Case("ct-underscore", {**ct({"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group", "symmetric": True}), "quant_method": "compressed_tensors"}, "compressed-tensors", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("ct-no-method", {k: v for k, v in ct({"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group", "symmetric": True}).items() if k != "quant_method"}, "compressed-tensors", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("ct-kv-fp8", ct({"num_bits": 8, "type": "float", "strategy": "tensor"}, F8, kv_cache_scheme={"num_bits": 8, "type": "float", "strategy": "tensor"}), "compressed-tensors", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("ct-kv-int8", ct({"num_bits": 8, "type": "float", "strategy": "tensor"}, F8, kv_cache_scheme=I8), "compressed-tensors", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("ct-preset-w4a16", preset("W4A16"), "compressed-tensors", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("ct-preset-w4a16-asym", preset("W4A16_ASYM"), "compressed-tensors", 4, 128, 0.5, 0.51953125, "bf16", True),
    Case("ct-preset-w8a8", preset("W8A8"), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "int8", False),
    Case("ct-preset-w8a16", preset("W8A16"), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "bf16", True),
    Case("ct-preset-fp8", preset("FP8"), "compressed-tensors", 8, None, 1.0, 1.0, "fp8", False),
    Case("ct-preset-fp8-dynamic", preset("FP8_DYNAMIC"), "compressed-tensors", 8, -1, 1.0, 1 + 2 * ROW, "fp8", False),
    Case("ct-preset-fp8-block", preset("FP8_BLOCK"), "compressed-tensors", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("ct-preset-nvfp4", preset("NVFP4"), "compressed-tensors", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("ct-preset-nvfp4a16", preset("NVFP4A16"), "compressed-tensors", 4, 16, 0.5, 0.5625, "bf16", True),
    Case("ct-preset-mxfp4", preset("MXFP4"), "compressed-tensors", 4, 32, 0.5, 0.53125, "fp4", False),
    # ---- ModelOpt
    Case("mo-fp8", mo("FP8"), "modelopt", 8, None, 1.0, 1.0, "fp8", False),
    Case("mo-fp8-kv", mo("FP8", kv_cache_quant_algo="FP8"), "modelopt", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("mo-fp8-kv-scheme", mo("FP8", kv_cache_scheme="FP8"), "modelopt", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("mo-fp8-kv-dict", mo("FP8", kv_cache_scheme={"num_bits": 8, "type": "float", "dynamic": False}), "modelopt", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("mo-kv-int8", mo("FP8", kv_cache_quant_algo="INT8"), "modelopt", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("mo-kv-nvfp4", mo("NVFP4", kv_cache_quant_algo="NVFP4"), "modelopt", 4, 16, 0.5, 0.5625, "fp4", False, 0.5625),
    Case("mo-fp8-block", mo("FP8_PB_WO"), "modelopt", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("mo-fp8-block-lower", mo("fp8_pb_wo"), "modelopt", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("mo-fp8-block-scales", mo("FP8_BLOCK_SCALES"), "modelopt", 8, 16384, 1.0, 1 + 4 / 16384, "fp8", False),
    Case("mo-nvfp4", mo("NVFP4", group_size=16), "modelopt", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("mo-nvfp4-awq", mo("NVFP4_AWQ"), "modelopt", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("mo-w4a16-nvfp4", mo("W4A16_NVFP4"), "modelopt", 4, 16, 0.5, 0.5625, "bf16", True),
    Case("mo-w4a8-nvfp4-fp8", mo("W4A8_NVFP4_FP8"), "modelopt", 4, 16, 0.5, 0.5625, "fp8", False),
    Case("mo-w4a8-mxfp4-fp8", mo("W4A8_MXFP4_FP8"), "modelopt", 4, 32, 0.5, 0.53125, "fp8", False),
    Case("mo-mxfp8", mo("MXFP8"), "modelopt", 8, 32, 1.0, 1.03125, "fp8", False),
    Case("mo-w4a16-awq", mo("W4A16_AWQ", group_size=128), "modelopt", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("mo-w4a16-awq-64", mo("W4A16_AWQ", group_size=64), "modelopt", 4, 64, 0.5, 0.53125, "bf16", True),
    Case("mo-w4a8-awq", mo("W4A8_AWQ"), "modelopt", 4, 128, 0.5, 0.515625, "fp8", False),
    Case("mo-w8a16", mo("W8A16"), "modelopt", 8, None, 1.0, 1.0, "bf16", True),
    Case("mo-sq", mo("W8A8_SQ_PER_CHANNEL"), "modelopt", 8, None, 1.0, 1.0, "int8", False),
    Case("mo-no-method", {"quant_algo": "FP8", "kv_cache_scheme": "FP8", "producer": {"name": "modelopt"}}, "modelopt", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("mo-nested", {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}}, "modelopt", 4, 16, 0.5, 0.5625, "fp4", False, 1.0),
    Case("mo-groups-only", {"quant_method": "modelopt", "config_groups": {"group_0": {"weights": F4 | {"group_size": 16}, "input_activations": F4, "targets": ["Linear"]}}, "ignore": ["lm_head"]}, "modelopt", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("mo-group-and-algo", mo("NVFP4", config_groups={"group_0": {"weights": F4, "input_activations": F4, "targets": ["Linear"]}}), "modelopt", 4, 16, 0.5, 0.5625, "fp4", False),
    # ---- bitsandbytes
    Case("bnb-nf4", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}, "bitsandbytes", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("bnb-fp4-is-a-code-book", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "bitsandbytes", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("bnb-double", {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}, "bitsandbytes", 4, 64, 0.5, 0.5 + 1 / 64 + 4 / (64 * 256), "bf16", True),
    Case("bnb-int8", {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": None}, "bitsandbytes", 8, None, 1.0, 1.0, "int8", False),
    Case("bnb-no-method", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("bnb-no-method-8", {"load_in_8bit": True}, "bitsandbytes", 8, None, 1.0, 1.0, "int8", False),
    # ---- HQQ, SINQ, Metal, MLX: 16-bit scale and 16-bit zero
    Case("hqq", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 4, "group_size": 64, "axis": 1}}, "skip_modules": ["lm_head"]}, "hqq", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("hqq-8", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {"nbits": 8, "group_size": 128}}}, "hqq", 8, 128, 1.0, 1.03125, "bf16", True),
    Case("hqq-defaults", {"quant_method": "hqq", "quant_config": {"weight_quant_params": {}}}, "hqq", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("sinq", {"quant_method": "sinq", "nbits": 4, "group_size": 64}, "sinq", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("metal", {"quant_method": "metal", "bits": 4, "group_size": 64}, "metal", 4, 64, 0.5, 0.5625, "bf16", True),
    Case("mlx", {"quant_method": "mlx", "group_size": 64, "bits": 4}, "mlx", 4, 64, 0.5, 0.5625, "bf16", True),
    # ---- torchao
    Case("ao-int4", ao("Int4WeightOnlyConfig", group_size=128), "torchao", 4, 128, 0.5, 0.5 + 4 / 128, "bf16", True),
    Case("ao-int4-32", ao("Int4WeightOnlyConfig", group_size=32), "torchao", 4, 32, 0.5, 0.625, "bf16", True),
    Case("ao-int8", ao("Int8WeightOnlyConfig"), "torchao", 8, None, 1.0, 1.0, "bf16", True),
    Case("ao-int8-dynamic", ao("Int8DynamicActivationInt8WeightConfig"), "torchao", 8, None, 1.0, 1.0, "int8", False),
    Case("ao-fp8-wo", ao("Float8WeightOnlyConfig"), "torchao", 8, None, 1.0, 1.0, "bf16", True),
    Case("ao-fp8-dynamic", ao("Float8DynamicActivationFloat8WeightConfig"), "torchao", 8, None, 1.0, 1.0, "fp8", False),
    Case("ao-string", {"quant_method": "torchao", "quant_type": "int4_weight_only", "quant_type_kwargs": {"group_size": 128}}, "torchao", 4, 128, 0.5, 0.53125, "bf16", True),
    Case("ao-string-8", {"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao", 8, None, 1.0, 1.0, "bf16", True),
    # ---- quanto, EETQ
    Case("quanto-int8", {"quant_method": "quanto", "weights": "int8", "activations": None}, "quanto", 8, None, 1.0, 1.0, "bf16", True),
    Case("quanto-float8", {"quant_method": "quanto", "weights": "float8"}, "quanto", 8, None, 1.0, 1.0, "bf16", True),
    Case("quanto-int4", {"quant_method": "quanto", "weights": "int4"}, "quanto", 4, 128, 0.5, 0.53125, "bf16", True),
    Case("quanto-int2", {"quant_method": "quanto", "weights": "int2"}, "quanto", 2, 128, 0.25, 0.28125, "bf16", True),
    Case("quanto-w8a8", {"quant_method": "quanto", "weights": "int8", "activations": "int8"}, "quanto", 8, None, 1.0, 1.0, "int8", False),
    Case("quanto-float8-w8a8", {"quant_method": "quanto", "weights": "float8", "activations": "float8"}, "quanto", 8, None, 1.0, 1.0, "fp8", False),
    Case("eetq", {"quant_method": "eetq", "weights": "int8"}, "eetq", 8, None, 1.0, 1.0, "bf16", True),
    # ---- code books and the rest
    Case("aqlm-1x16", {"quant_method": "aqlm", "num_codebooks": 1, "nbits_per_codebook": 16, "in_group_size": 8, "out_group_size": 1}, "aqlm", 2, None, 0.25, 0.25 + 2**20 / 4096**2, "bf16", True),
    Case("aqlm-2x8", {"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8, "in_group_size": 8, "out_group_size": 1}, "aqlm", 2, None, 0.25, 0.25 + 2 * 256 * 8 * 2 / 4096**2, "bf16", True),
    Case("vptq", {"quant_method": "vptq", "config_for_layers": {f"model.layers.{i}.{m}": {"vector_lens": [-1, 8], "num_centroids": [-1, 65536], "num_res_centroids": [-1, 256]} for i in range(2) for m in VPTQ}}, "vptq", 3, None, 0.375, 0.375, "bf16", True),
    Case("spqr", {"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16}, "spqr", 3, None, 0.375, 0.375, "bf16", True),
    Case("higgs", {"quant_method": "higgs", "bits": 4, "p": 2, "group_size": 256}, "higgs", 4, 256, 0.5, 0.5 + 2 / 256, "bf16", True),
    Case("gemma", {"quant_method": "gemma", "num_bits": 4}, "gemma", 4, -1, 0.5, 0.5 + 2 * ROW, "bf16", True),
    Case("fp-quant", {"quant_method": "fp_quant", "forward_dtype": "nvfp4"}, "fp_quant", 4, 16, 0.5, 0.5625, "fp4", False),
    Case("fp-quant-mx", {"quant_method": "fp_quant", "forward_dtype": "mxfp4"}, "fp_quant", 4, 32, 0.5, 0.53125, "fp4", False),
    Case("bitnet", {"quant_method": "bitnet"}, "bitnet", 2, None, 0.25, 0.25, "int8", False),
    Case("w8a8-int8", {"quant_method": "w8a8_int8"}, "w8a8_int8", 8, None, 1.0, 1.0, "int8", False),
    Case("w8a8-fp8", {"quant_method": "w8a8_fp8"}, "w8a8_fp8", 8, None, 1.0, 1.0, "fp8", False),
    # ---- Quark
    Case("quark-fp8", quark({"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, {"dtype": "fp8_e4m3"}), "quark", 8, None, 1.0, 1.0, "fp8", False),
    Case("quark-fp4", quark({"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}, {"dtype": "fp4"}), "quark", 4, 32, 0.5, 0.53125, "fp4", False),
    Case("quark-int4", quark({"dtype": "int4", "qscheme": "per_group", "group_size": 128}), "quark", 4, 128, 0.5, 0.515625, "bf16", True),
    Case("quark-int8", quark({"dtype": "int8", "qscheme": "per_tensor"}, {"dtype": "int8"}), "quark", 8, None, 1.0, 1.0, "int8", False),
    Case("quark-kv", quark({"dtype": "fp8_e4m3", "qscheme": "per_tensor"}, {"dtype": "fp8_e4m3"}, layer_quant_config={"*k_proj": {"output_tensors": {"dtype": "fp8_e4m3"}}}), "quark", 8, None, 1.0, 1.0, "fp8", False, 1.0),
    Case("gptq-16", {"quant_method": "gptq", "bits": 16}, "none", 16, None, 2.0, 2.0, "bf16", False),
    Case("awq-16", {"quant_method": "awq", "bits": 16}, "none", 16, None, 2.0, 2.0, "bf16", False),
    # ---- nothing to say
    Case("null", {}, "none", 16, None, 2.0, 2.0, "bf16", False, extra={"quantization_config": None}),
    Case("fp32", {}, "none", 32, None, 4.0, 4.0, "tf32", False, 4.0, {"torch_dtype": "float32", "quantization_config": None}),
    Case("fp16", {}, "none", 16, None, 2.0, 2.0, "bf16", False, 2.0, {"torch_dtype": "float16", "quantization_config": None}),
    Case("new-dtype-key", {}, "none", 32, None, 4.0, 4.0, "tf32", False, 4.0, {"torch_dtype": None, "dtype": "float32", "quantization_config": None}),
    Case("float8-dtype", {}, "fp8", 8, None, 1.0, 1.0, "fp8", False, 2.0, {"torch_dtype": "float8_e4m3fn", "quantization_config": None}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_block_is_read(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ModelConfig.from_hf({**BASE, "quantization_config": case.block, **case.extra}, name="m")
    q = model.quantization
    assert (q.method, q.weight_bits, q.group_size) == (case.method, case.bits, case.group)
    assert q.weight_bytes_nominal == case.nominal
    assert q.weight_bytes_effective == pytest.approx(case.effective, rel=1e-9)
    assert (q.compute_class, q.weight_only) == (case.compute, case.weight_only)
    assert q.kv_bytes_per_element == case.kv
    linear = 2 * (4 + 3) * 4096 * 4096
    plain = {"none": q.weight_bytes_nominal}.get(q.method, 2.0)
    rest = model.total_params - linear
    assert model.weight_bytes == pytest.approx(linear * case.effective + rest * plain, rel=1e-9)


@pytest.mark.parametrize(
    "where", ["text_config", "compression_config", "quantization", "text_config.compression_config"]
)
def test_block_is_found_under_older_names_and_nested(where: str) -> None:
    block = CASES[0].block
    nest, _, key = where.rpartition(".") if "." in where else (where, "", "quantization_config")
    if where in ("compression_config", "quantization"):
        config = {**BASE, where: block}
    else:
        config = {"model_type": "outer", "text_config": {**BASE, key: block}}
    assert ModelConfig.from_hf(config).quantization.method == "gptq", nest


def test_key_order_does_not_matter() -> None:
    groups = {
        "group_0": {"weights": F8 | {"strategy": "tensor"}, "input_activations": F8, "targets": ["re:.*self_attn.*"]},
        "group_1": {
            "weights": {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128},
            "targets": ["Linear"],
        },
    }
    block = {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}
    turned = {
        "ignore": ["lm_head"],
        "config_groups": dict(reversed(groups.items())),
        "quant_method": "compressed-tensors",
    }
    one, two = ({**BASE, "quantization_config": b} for b in (block, turned))
    backwards = dict(reversed(two.items()))
    assert ModelConfig.from_hf(one) == ModelConfig.from_hf(two) == ModelConfig.from_hf(backwards)
