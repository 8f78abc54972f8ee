"""How a model is cut: into pipeline stages, each a model of fewer layers, and their weights over ranks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from mfuroof._boundary import Problems
from mfuroof.models.config import ModelConfig
from mfuroof.models.modules import Module
from mfuroof.models.specs import LayerSpec

__all__ = ["layers_per_stage", "local_fraction", "stage_models", "weight_bytes_per_rank"]


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


def layers_per_stage(num_layers: int, pp_size: int) -> tuple[int, ...]:
    """Return the layers of each pipeline stage: what is left over goes to the stages before the last (as vLLM does)."""
    base, extra = divmod(num_layers, pp_size)
    counts = [base] * pp_size
    for i in range(extra):
        counts[-2 - i if pp_size > 1 else -1] += 1
    return tuple(counts)


def stage_models(model: ModelConfig, pp_size: int) -> tuple[ModelConfig, ...]:
    """Return the stages of ``model``: the first has the embedding, the last the final norm and the LM head.

    A table that serves as both (tied embeddings) is on both.
    """
    if pp_size == 1:
        return (model,)
    stages = []
    start = 0
    for i, count in enumerate(layers_per_stage(model.num_hidden_layers, pp_size)):
        stages.append(_stage(model, start, start + count, first=i == 0, last=i == pp_size - 1))
        start += count
    return tuple(stages)


def _stage(model: ModelConfig, start: int, stop: int, *, first: bool, last: bool) -> ModelConfig:
    layers = []
    for spec in model.layers:
        inside = tuple(i - start for i in spec.layer_indices if start <= i < stop)
        if inside:
            layers.append(replace(spec, count=len(inside), layer_indices=inside))
    # one table at most: it stands as a tied embedding, in the format of the table that it is
    formats = dict(model.formats)
    table = "embed_tokens" if first or model.tie_word_embeddings else "lm_head"
    kept = {"embed_tokens": formats[table]} if table in formats else {}
    return replace(
        model,
        layers=tuple(layers),
        num_hidden_layers=stop - start,
        vocab_size=model.vocab_size if first or last else 0,
        tie_word_embeddings=True,
        extra_params=model.extra_params if last else 0,
        formats=tuple(kept.items()),
    )


def weight_bytes_per_rank(
    model: ModelConfig, tp_size: int = 1, pp_size: int = 1, ep_size: int = 1, dp_size: int = 1
) -> float:
    """Return the weight bytes of the fullest rank, over all pipeline stages. [bytes]

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
    return max(_rank_bytes(stage, tp, ep, dp) for stage in stage_models(model, pp))


def _rank_bytes(stage: ModelConfig, tp: int, ep: int, dp: int) -> float:
    inside = sum(spec.count * _local(stage, spec, stage.modules(spec), tp, ep, dp) for spec in stage.layers)
    return inside + _local(stage, None, stage.top_modules, tp, ep, dp)


def _local(model: ModelConfig, spec: LayerSpec | None, modules: Iterable[Module], tp: int, ep: int, dp: int) -> float:
    return sum(model.module_bytes(spec, m) * local_fraction(m, tp, ep, dp) for m in modules)
