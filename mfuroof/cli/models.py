"""``mfuroof models``: the built-in models, and any model in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfuroof.cli import options as o
from mfuroof.cli.output import print_json, print_pairs, print_table

if TYPE_CHECKING:
    from mfuroof.models import ModelConfig

__all__ = ["EXAMPLES", "models"]

EXAMPLES = (
    "mfuroof models",
    "mfuroof models --sizes",
    "mfuroof models Qwen/Qwen3-32B --weight-dtype fp8",
)


def models(
    name: Annotated[
        str | None,
        typer.Argument(help="One model in full: built in, or the path of a config.", autocompletion=o.complete_model),
    ] = None,
    sizes: Annotated[bool, typer.Option("--sizes", help="List parameters, weights and cache of each.")] = False,
    weight_dtype: o.WeightDtype = None,
    kv_dtype: o.KvDtype = None,
    json: o.Json = False,
) -> None:
    """List the built-in models, or describe one: layers, parameters, precision, bytes."""
    from mfuroof.models import ModelConfig, get_model, known_models

    precision = {"weight_dtype": weight_dtype, "kv_dtype": kv_dtype}
    chosen = {key: value for key, value in precision.items() if value is not None}
    if name is not None:
        model = ModelConfig.from_hf(name)
        model = model.with_precision(**chosen) if chosen else model
        if json:
            print_json(_record(model))
        else:
            _print_one(model)
    elif sizes:
        found = [get_model(known) for known in known_models()]
        found = [model.with_precision(**chosen) for model in found] if chosen else found
        if json:
            print_json([_record(model) for model in found])
        else:
            _print_all(found)
    elif json:
        print_json(list(known_models()))
    else:
        print("\n".join(known_models()))


def _record(model: ModelConfig) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": model.name,
        "model_type": model.model_type,
        "num_hidden_layers": model.num_hidden_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.num_attention_heads,
        "num_key_value_heads": model.num_key_value_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocab_size,
        "num_experts": model.num_experts,
        "num_experts_per_tok": model.num_experts_per_tok,
        "moe_intermediate_size": model.moe_intermediate_size,
        "total_params": model.total_params,
        "active_params": model.active_params,
        "params_by_component": model.params_by_component(),
        "weight_bytes": model.weight_bytes,
        "kv_bytes_per_token": model.kv_bytes_per_token,
        "dtype": model.dtype,
        "kv_dtype": model.kv_dtype,
        "quantization": asdict(model.quantization),
    }


def _print_one(model: ModelConfig) -> None:
    print_pairs(model.name, [(label, value) for label, value in model.describe() if label != "name"])


def _print_all(found: list[ModelConfig]) -> None:
    from mfuroof.units import GB, KIB

    rows = [
        (
            model.name,
            f"{model.total_params / GB:.2f}",
            f"{model.active_params / GB:.2f}" if model.is_moe else "-",
            f"{model.weight_bytes / GB:.1f}",
            f"{model.kv_bytes_per_token / KIB:.1f}",
            str(model.num_hidden_layers),
        )
        for model in found
    ]
    print_table("", ("model", "params_B", "active_B", "weights_GB", "KV_KiB/token", "layers"), rows)
