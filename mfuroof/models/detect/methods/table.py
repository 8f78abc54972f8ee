"""The table of methods: to add one, write a reader (or reuse one) and enter it here.

A reader takes the block and returns a `Scheme`, or None after noting why it cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.methods import others
from mfuroof.models.detect.methods.compressed import compressed_tensors
from mfuroof.models.detect.methods.float8 import EXPERTS, fbgemm_fp8, fp8, mxfp4
from mfuroof.models.detect.methods.integer import affine, autoround, awq, gptq
from mfuroof.models.detect.methods.modelopt import modelopt
from mfuroof.models.detect.methods.quark import quark
from mfuroof.models.detect.scheme import Scheme
from mfuroof.precision import FORMATS

__all__ = ["METHODS", "method_of"]

Reader = Callable[[Block], Scheme | None]

METHODS: Mapping[str, Reader] = {
    "gptq": gptq,
    "gptq-marlin": gptq,
    "marlin": gptq,
    "awq": awq,
    "awq-marlin": awq,
    "auto-round": autoround,
    "intel/auto-round": autoround,
    "auto-round:auto-gptq": autoround,
    "inc": autoround,
    "fp8": fp8,
    "deepseek-v4-fp8": fp8,
    "mxfp8": others.fixed("mxfp8", FORMATS["mxfp8"]),
    "fbgemm-fp8": fbgemm_fp8,
    "compressed-tensors": compressed_tensors,
    "modelopt": modelopt,
    "modelopt-fp4": modelopt,
    "modelopt-fp8": modelopt,
    "modelopt-mixed": modelopt,
    "modelopt-mxfp8": modelopt,
    "nvfp4": others.fixed("nvfp4", FORMATS["nvfp4"]),
    "mxfp4": mxfp4,
    "bitsandbytes": others.bitsandbytes,
    "bitsandbytes-4bit": others.bitsandbytes,
    "bitsandbytes-8bit": others.bitsandbytes,
    "hqq": affine("hqq", ("nbits", "bits"), nested=("quant_config", "weight_quant_params")),
    "sinq": affine("sinq", ("nbits", "bits")),
    "metal": affine("metal", ("bits", "nbits")),
    "mlx": affine("mlx", ("bits",)),
    "torchao": others.torchao,
    "quanto": others.quanto,
    "eetq": others.fixed("eetq", others.INT8_WO),
    "experts-int8": others.fixed("experts_int8", others.INT8_WO, EXPERTS),
    "w8a8-int8": others.fixed("w8a8_int8", others.INT8),
    "w8a8-fp8": others.fixed("w8a8_fp8", FORMATS["fp8"]),
    "blockwise-int8": others.fixed("blockwise_int8", FORMATS["int8"].grouped(128 * 128, 4.0)),
    "w4afp8": others.fixed("w4afp8", FORMATS["w4a8_int4_fp8"], EXPERTS),
    "aqlm": others.aqlm,
    "vptq": others.vptq,
    "spqr": others.spqr,
    "higgs": others.higgs,
    "gemma": others.by_pattern,
    "fp-quant": others.fp_quant,
    "quark": quark,
    "bitnet": others.fixed("bitnet", FORMATS["ternary"]),
}
"""Reader by ``quant_method``, in lower case with hyphens."""

_SIGNS = (
    ("quant_algo", "modelopt"), ("quantized_layers", "modelopt"),
    ("load_in_4bit", "bitsandbytes"), ("load_in_8bit", "bitsandbytes"),
    ("config_groups", "compressed-tensors"), ("global_quant_config", "quark"), ("quant_type", "torchao"),
    ("w_bit", "awq"), ("q_group_size", "awq"), ("zero_point", "awq"), ("version", "awq"),
    ("desc_act", "gptq"), ("sym", "gptq"), ("damp_percent", "gptq"), ("true_sequential", "gptq"),
    ("weight_block_size", "fp8"), ("activation_scheme", "fp8"), ("num_codebooks", "aqlm"),
    ("config_for_layers", "vptq"), ("forward_dtype", "fp-quant"), ("module_quant_configs", "gemma"),
)  # fmt: skip
"""What a block without ``quant_method`` is recognised by, in order."""


def method_of(block: Block) -> str:
    """Return the key in `METHODS`: as written, or by what the block contains; empty (noted) if nothing fits."""
    key, value = block.find("quant_method", "quantization_method")
    if isinstance(value, str) and value.strip():
        name = value.strip().lower().replace("_", "-")
        if name in METHODS:
            return name
        block.warn(key, value, "is no known method")
        return ""
    if value is not None and value != "":
        block.warn(key, value, "is no name of a method")
    found = next((name for sign, name in _SIGNS if block.data.get(sign) is not None), "")
    if not found and block.data.get("bits") is not None:
        found = "mlx" if block.where == "quantization" else "gptq"
    if not found:
        block.warn(key, value, f"is missing, and nothing in {sorted(map(str, block.data))[:8]} says what it is")
    return found
