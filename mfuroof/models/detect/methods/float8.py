"""8-bit floats of DeepSeek, Qwen, GLM and FBGEMM, and gpt-oss' MXFP4 experts."""

from __future__ import annotations

from mfuroof.models.detect.block import Block
from mfuroof.models.detect.build import float_format
from mfuroof.models.detect.methods.integer import skip_rules
from mfuroof.models.detect.methods.modelopt import algorithm
from mfuroof.models.detect.scheme import Rule, Scheme
from mfuroof.precision import FORMATS, Format

__all__ = ["experts_rule", "fbgemm_fp8", "fp8", "mxfp4"]

EXPERTS = frozenset(("experts",))
_EXPERT_DTYPES = {
    "fp4": "w4a8_mxfp4_mxfp8",
    "mxfp4": "w4a8_mxfp4_mxfp8",
    "nvfp4": "nvfp4",
    "fp8": "fp8_block",
    "bf16": "",
    "bfloat16": "",
}


def fp8(block: Block) -> Scheme | None:
    """Read W8A8: one scale per ``weight_block_size`` (else per matrix); ``expert_dtype`` may narrow the experts."""
    return Scheme("fp8", _fp8_format(block), (*experts_rule(block), *_skips(block)))


def _skips(block: Block) -> tuple[Rule, ...]:
    """Return what stays 16-bit; ``ignore`` beside a ``quant_algo`` belongs to that, not to the FP8 part."""
    keys = ("modules_to_not_convert", "ignored_layers")
    return skip_rules(block, "component", *(keys if block.data.get("quant_algo") else ()))


def _fp8_format(block: Block) -> Format:
    shape = block.block_shape("weight_block_size")
    if block.text("activation_scheme") not in ("", "dynamic", "static", "none"):
        block.warn("activation_scheme", block.data["activation_scheme"], "is not known; W8A8 is assumed")
    if shape is None:
        return FORMATS["fp8"]
    if shape[0] * shape[1] == 32:
        return FORMATS["mxfp8"]
    scale = 1.0 if str(block.context.get("model_type")) in ("deepseek_v4", "deepseek_ref") else 4.0
    return float_format(8, shape[0] * shape[1], activations="fp8", scale_bytes=scale)


def experts_rule(block: Block) -> tuple[Rule, ...]:
    """Return the format of routed experts where the block or the config gives them one of their own."""
    algo = block.text("moe_quant_algo")
    if algo:
        fmt = algorithm(algo, block.group("group_size", default=16))
        if fmt is not None:
            block.notes.origins["experts"] = f"{block.where}.moe_quant_algo"
            return (Rule(fmt, kinds=EXPERTS),)
        block.warn("moe_quant_algo", algo, "is not known; experts are taken to be like the rest")
    for source, where in ((block.data, f"{block.where}.expert_dtype"), (block.context, "expert_dtype")):
        value = source.get("expert_dtype")
        if value is None:
            continue
        name = _EXPERT_DTYPES.get(value.strip().lower()) if isinstance(value, str) else None
        if name is None:
            block.notes.warn(where, value, "is not known; experts are taken to be like the rest")
            continue
        block.notes.origins["experts"] = where
        return (Rule(FORMATS[name] if name else None, kinds=EXPERTS),)
    return ()


def fbgemm_fp8(block: Block) -> Scheme | None:
    """Read W8A8 with one fp32 scale per output row."""
    return Scheme("fbgemm_fp8", FORMATS["fp8"].grouped(-1, 4.0), skip_rules(block, "component"))


def mxfp4(block: Block) -> Scheme | None:
    """Read gpt-oss: experts in MXFP4, everything else 16-bit; activations stay 16-bit."""
    return Scheme("mxfp4", FORMATS["w4a16_mxfp4"], skip_rules(block, "component"), kinds=EXPERTS)
