"""How the weights of a model are spread over ranks."""

from __future__ import annotations

from collections.abc import Iterable

from mfuroof._boundary import Problems
from mfuroof.models.config import ModelConfig
from mfuroof.models.modules import Module
from mfuroof.models.specs import LayerSpec

__all__ = ["layers_per_stage", "local_copies", "local_fraction", "weight_bytes_per_rank"]


def local_fraction(module: Module, tp_size: int = 1, ep_size: int = 1, dp_size: int = 1) -> float:
    """Return the part of a module that the fullest rank of a stage holds, in (0, 1].

    Matrices split evenly over ``tp_size``; whole heads cannot be cut, so that KV projections with fewer heads than
    ranks are replicated; routed experts spread over ``ep_size`` ranks and each over ``tp_size * dp_size / ep_size``;
    norms, routers and low-rank projections are on every rank.
    """
    if module.shard == "none":
        return 1.0
    if module.shard == "expert":
        return -(-module.copies // ep_size) / module.copies * ep_size / (tp_size * dp_size)
    if module.units:
        return -(-module.units // tp_size) / module.units
    return 1.0 / tp_size


def local_copies(total: int, ranks: int) -> int:
    """Return the most copies (heads, experts) any of ``ranks`` holds; at least 1."""
    return max(1, -(-total // ranks))


def layers_per_stage(num_layers: int, pp_size: int) -> tuple[int, ...]:
    """Return the layers of each pipeline stage: what is left over goes to the stages before the last (as vLLM does)."""
    base, extra = divmod(num_layers, pp_size)
    counts = [base] * pp_size
    for i in range(extra):
        counts[-2 - i if pp_size > 1 else -1] += 1
    return tuple(counts)


def weight_bytes_per_rank(
    model: ModelConfig, tp_size: int = 1, pp_size: int = 1, ep_size: int = 1, dp_size: int = 1
) -> float:
    """Return the weight bytes of the fullest rank, over all pipeline stages. [bytes]

    The first stage holds the embedding, the last the LM head (the embedding again where they are tied) and the final
    norm.

    Raises
    ------
    InputError
        A degree is no positive integer, ``pp_size`` exceeds the layers, or ``ep_size`` is no divisor of
        ``tp_size * dp_size``.
    """
    problems = Problems()
    names = {"tp_size": tp_size, "pp_size": pp_size, "ep_size": ep_size, "dp_size": dp_size}
    tp, pp, ep, dp = (problems.positive_int(k, v) for k, v in names.items())
    if pp > model.num_hidden_layers:
        problems.add("pp_size", pp, f"at most {model.num_hidden_layers}, the layers of {model.name or 'the model'}")
    if (tp * dp) % ep:
        problems.add("ep_size", ep, f"a divisor of tp_size * dp_size = {tp * dp}")
    problems.raise_if_any()
    by_layer = [0.0] * model.num_hidden_layers
    for spec in model.layers:
        size = _local(model, spec, model.modules(spec), tp, ep, dp)
        for i in spec.layer_indices:
            by_layer[i] = size
    top = {m.name: _local(model, None, (m,), tp, ep, dp) for m in model.top_modules}
    stages, start = [], 0
    for count in layers_per_stage(model.num_hidden_layers, pp):
        stages.append(sum(by_layer[start : start + count]))
        start += count
    stages[0] += top["embed_tokens"]
    if pp > 1 or "lm_head" in top:
        stages[-1] += top.get("lm_head", top["embed_tokens"])
    stages[-1] += top.get("norm", 0.0)
    return max(stages)


def _local(model: ModelConfig, spec: LayerSpec | None, modules: Iterable[Module], tp: int, ep: int, dp: int) -> float:
    return sum(model.module_bytes(spec, m) * local_fraction(m, tp, ep, dp) for m in modules)
