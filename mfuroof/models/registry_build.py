"""Condense Hugging Face configs into registry entries: ``python -m mfuroof.models.registry_build FOLDER``.

FOLDER holds ``org--name_config.json`` and ``org--name_hf_quant_config.json`` (the layout of the package
aiconfigurator-core). Only keys that say something about architecture or precision are kept.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mfuroof.models.expand import condense

__all__ = ["condensed", "main"]

_DROPPED = re.compile(
    r"^(_name_or_path|architectures|auto_map|transformers_version|initializer.*|(?!num_experts).*_token(_id|_index|_ids)?|.*dropout.*|"
    r"rope_.*|.*_rope_theta|rms_norm_eps|.*_eps|layer_norm_epsilon|layernorm_epsilon|use_cache|max_position_embeddings|"
    r"vision_config|audio_config|partial_rotary_factor|rotary_dim|time_step.*|chunk_size.*|output_.*|router_aux.*|"
    r"routed_scaling_factor|scoring_func|norm_topk_prob|n_group|topk_group|topk_method|swiglu.*|final_logit.*|seq_aux|"
    r"aux_loss.*|pretraining_tp|ep_size|residual_in_fp32|rescale.*|num_logits_to_keep|hidden_dropout|image_.*|"
    r"video_.*|vision_.*|pad_token.*|id2label|label2id|.*beam.*|top_p|temperature|typical_p|tf_legacy_loss|torchscript|"
    r"return_dict.*|do_sample|early_stopping|length_penalty|.*length$|repetition_penalty|diversity_penalty|"
    r"no_repeat.*|encoder_no_.*|use_bfloat16|remove_invalid.*|problem_type|pruned_heads|prefix|task_specific.*|"
    r"tie_encoder.*|tokenizer_class|is_decoder|is_encoder_decoder|add_cross.*|cross_attention.*|chunk_.*|finetuning.*|"
    r"sep_.*|suppress.*|begin_.*|bad_words.*|exponential.*|forced_.*|ignore_index|img_.*|process_image.*|multimodal.*|"
    r"projector.*|num_reward.*|media_.*|mlp_hidden_dropout|hc_eps|hc_sinkhorn.*|activation_situ.*|top_k|boa_.*|boi_.*|"
    r"eoa_.*|eoi_.*|use_unified.*|initial_context.*|moe_router_(?!bias).*|use_mamba.*|mamba_hidden.*)$"
)
ALIASES: Mapping[str, tuple[str, ...]] = {
    "meta-llama/Meta-Llama-3.1-8B": ("meta-llama/Meta-Llama-3-8B", "meta-llama/Llama-3-8B"),
    "meta-llama/Meta-Llama-3.1-70B": (
        "meta-llama/Llama-3.3-70B",
        "meta-llama/Meta-Llama-3-70B",
        "meta-llama/Llama-3-70B",
    ),
    "deepseek-ai/DeepSeek-V3": ("deepseek-ai/DeepSeek-V3-0324", "deepseek-ai/DeepSeek-V3.1"),
    "deepseek-ai/DeepSeek-R1": ("deepseek-ai/DeepSeek-R1-0528",),
    "moonshotai/Kimi-K2-Instruct": ("moonshotai/Kimi-K2-Instruct-0905",),
    "Qwen/Qwen3-30B-A3B": ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B-Thinking-2507"),
    "Qwen/Qwen3-235B-A22B": ("Qwen/Qwen3-235B-A22B-Instruct-2507", "Qwen/Qwen3-235B-A22B-Thinking-2507"),
}
"""Checkpoints of the same architecture and precision."""

_KEEP_NULL = ("sliding_window",)


def condensed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config without the keys that say nothing here, long name lists as ranges."""
    out: dict[str, Any] = {}
    for key, value in config.items():
        if (value is None and key not in _KEEP_NULL) or _DROPPED.match(key):
            continue
        if key == "text_config":
            out[key] = condensed(value)
        elif key in ("quantization_config", "quantization"):
            out[key] = _short(value)
        elif key == "block_configs":
            out[key] = [{part: {k: v for k, v in body.items() if v} for part, body in block.items()} for block in value]
        else:
            out[key] = value
    return out


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        if all(isinstance(v, Mapping) for v in value.values()) and len(value) > 8:
            return _short_map(value)
        return {k: _short(v) for k, v in value.items()}
    if isinstance(value, list) and len(value) > 3 and all(isinstance(v, str) for v in value):
        return condense(value)
    return value


def _short_map(value: Mapping[str, Any]) -> dict[str, Any]:
    by_body: dict[str, list[str]] = {}
    for name, body in value.items():
        by_body.setdefault(json.dumps(body, sort_keys=True), []).append(name)
    return {name: json.loads(body) for body, names in by_body.items() for name in condense(names)}


def main(folder: str, target: str) -> None:
    """Write one file per organisation under ``target``."""
    by_owner: dict[str, dict[str, Any]] = {}
    for file in sorted(Path(folder).glob("*_config.json")):
        if file.name.endswith("_hf_quant_config.json"):
            continue
        owner, _, model = file.name.removesuffix("_config.json").partition("--")
        entry: dict[str, Any] = {"config": condensed(json.loads(file.read_text()))}
        if f"{owner}/{model}" in ALIASES:
            entry = {"aliases": list(ALIASES[f"{owner}/{model}"]), **entry}
        side = file.with_name(file.name.removesuffix("_config.json") + "_hf_quant_config.json")
        if side.is_file():
            entry["sidecar"] = _short(json.loads(side.read_text()))
        by_owner.setdefault(owner, {})[f"{owner}/{model}"] = entry
    source = "aiconfigurator-core 0.12.0, folder model_configs (Apache-2.0); architecture facts of public checkpoints"
    for owner, models in by_owner.items():
        lines = ",\n".join(f"  {json.dumps(k)}: {_compact(v)}" for k, v in models.items())
        text = f'{{\n "source": {json.dumps(source)},\n "models": {{\n{lines}\n }}\n}}\n'
        (Path(target) / f"{owner.lower()}.json").write_text(text)


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "))


if __name__ == "__main__":
    main(*sys.argv[1:3])
