"""Pipeline stages: each is a model of fewer layers, so that everything that counts a model counts a stage."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.models import ModelConfig
from mfuroof.models.sharding import layers_per_stage

__all__ = ["stage_models"]


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
