"""The work of a model layer by layer: every matrix at its own width, format and sharding.

References
----------
.. [1] Multi-head latent attention: DeepSeek-V2, arXiv:2405.04434, section 2.1 (absorbed projections in decode).
"""

from __future__ import annotations

from mfuroof.costs.layered_attention import attention_work
from mfuroof.costs.workload import Experts, Work, Workload, merged
from mfuroof.hardware import Hardware
from mfuroof.hardware.rates import FORMAT_LANES
from mfuroof.models import LayerSpec, ModelConfig, Module
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS, Format

__all__ = ["format_rate", "layered_work", "shard_share"]


def format_rate(hardware: Hardware, fmt: Format) -> float:
    """Return the rate at which products of a storage format run. [FLOP/s]"""
    return hardware.peak(fmt.name if fmt.name in FORMAT_LANES else fmt.compute_class)


def shard_share(module: Module, tp_size: int) -> float:
    """Return the part of one matrix that the fullest rank holds; pieces are not assumed to divide evenly."""
    if module.shard == "none":
        return 1.0
    return 1.0 / (min(tp_size, module.units) if module.units else tp_size)


def layered_work(model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams) -> Workload:
    """Return one GPU's share of the work of a model, for a step of one attention data-parallel rank.

    Routed experts are spread over ``tp_size * dp_size`` GPUs and serve the tokens of all data-parallel ranks.
    """
    tp, dp = parallel.tp_size, parallel.dp_size
    token, dense_bytes, experts, attention = Work(), 0.0, [], []
    for layer in model.layers:
        own_mlp = _mlp_factor(layer, params)
        for module in model.modules(layer):
            factor = layer.count * (own_mlp if module.name.endswith((".gate_proj", ".up_proj")) else 1.0)
            stored = model.module_bytes(layer, module)
            fmt = model.format_in(layer, module.name)
            flops = 2.0 * module.active_copies * module.out_features * module.in_features
            share = 1.0 / tp if module.shard == "expert" else shard_share(module, tp)
            token += Work(flops, flops / format_rate(hardware, fmt)) * (factor * share)
            if module.shard == "expert":
                per_expert = factor * stored / module.copies / (tp * dp)
                experts.append(Experts(module.copies, module.active_copies, per_expert, dp))
            else:
                dense_bytes += factor * stored * share
        attention.append(attention_work(model, layer, hardware, parallel, params))
    width, layers = FORMATS[model.dtype].bytes_per_weight * model.hidden_size, model.num_hidden_layers
    rotary = params.rotary_flops_per_element * model.hidden_size * layers / tp
    token += Work(rotary, rotary / hardware.peak("bf16"))
    for part in attention:
        token += part.token
    head_share = model.vocab_size * model.hidden_size / tp
    head = model.format_in(None, "embed_tokens" if model.tie_word_embeddings else "lm_head")
    return Workload(
        token=token,
        reaches=merged([reach for part in attention for reach in part.reaches]),
        dense_bytes=dense_bytes,
        experts=_joined(experts),
        kv_write_bytes=sum(part.write_bytes for part in attention),
        activation_bytes=width * (layers + 1),
        emission=Work(2.0 * head_share, 2.0 * head_share / format_rate(hardware, head)),
        head_bytes=head.matrix_bytes(model.vocab_size, model.hidden_size) / tp,
        state_bytes=sum(part.state_bytes for part in attention),
    )


def _mlp_factor(layer: LayerSpec, params: CostParams) -> float:
    """Scale of the matrices before the down projection that gives ``params.mlp_matrices`` in all."""
    if params.mlp_matrices is None or layer.mlp.kind == "none":
        return 1.0
    return max(params.mlp_matrices - 1, 0) / (layer.mlp.num_matrices - 1)


def _joined(experts: list[Experts]) -> tuple[Experts, ...]:
    total: dict[tuple[int, int, int], float] = {}
    for e in experts:
        key = (e.num_experts, e.experts_per_token, e.tokens)
        total[key] = total.get(key, 0.0) + e.bytes_per_expert
    return tuple(Experts(n, k, size, tokens) for (n, k, tokens), size in total.items())
