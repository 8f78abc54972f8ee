"""Pipeline stages: each is a model of fewer layers, so that everything that counts a model counts a stage."""

from __future__ import annotations

from dataclasses import replace

from mfuroof.models import ModelConfig

__all__ = ["layer_counts", "stage_models"]


def layer_counts(num_layers: int, pp_size: int) -> tuple[int, ...]:
    """Return the layers of each stage: even, what is left over on the stages before the last, which has the LM head.

    The same split as vLLM's default.

    Examples
    --------
    >>> layer_counts(80, 8), layer_counts(61, 4)
    ((10, 10, 10, 10, 10, 10, 10, 10), (15, 15, 16, 15))
    """
    base, extra = divmod(num_layers, pp_size)
    counts = [base] * pp_size
    for i in range(extra):
        counts[-2 - i] += 1
    return tuple(counts)


def stage_models(model: ModelConfig, pp_size: int) -> tuple[ModelConfig, ...]:
    """Return the stages of ``model``: the first has the embedding, the last the final norm and the LM head.

    A table that serves as both (tied embeddings) is on both.
    """
    if pp_size == 1:
        return (model,)
    stages = []
    start = 0
    for i, count in enumerate(layer_counts(model.num_hidden_layers, pp_size)):
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
    fields = {name: getattr(model, name) for name in type(model).__dataclass_fields__}
    fields |= {
        "layers": tuple(layers),
        "num_hidden_layers": stop - start,
        "vocab_size": model.vocab_size if first or last else 0,
        "tie_word_embeddings": True,
        "extra_params": model.extra_params if last else 0,
        "formats": tuple(kept.items()),
    }
    return ModelConfig(**fields)
