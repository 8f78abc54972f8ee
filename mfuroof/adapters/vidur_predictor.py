"""The half of Vidur's predictor that needs no Vidur: reading its batches, filling its slots."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mfuroof.adapters.vidur_parts import SLOTS, VidurParts
from mfuroof.embedding import Embedded, kernel_stamp
from mfuroof.errors import UnknownNameError
from mfuroof.hardware import get_hardware
from mfuroof.models import ModelConfig
from mfuroof.step import StepEvaluator
from mfuroof.units import MS

__all__ = ["VidurPredictor", "evaluator_of"]

_SLOT_NAMES = {
    "attention_rope": "attention_rope_execution_time",
    "attention_decode": "attention_decode_execution_time",
    "attention_prefill": "attention_prefill_execution_time",
    "attention_pre_proj": "attention_layer_pre_proj_execution_time",
    "attention_post_proj": "attention_layer_post_proj_execution_time",
    "mlp_up_proj": "mlp_layer_up_proj_execution_time",
    "mlp_down_proj": "mlp_layer_down_proj_execution_time",
    "mlp_act": "mlp_layer_act_execution_time",
    "attn_norm": "attn_norm_time",
    "mlp_norm": "mlp_norm_time",
    "add": "add_time",
    "tensor_parallel": "tensor_parallel_communication_time",
}
_UNUSED = {"attention_kv_cache_save_execution_time": 0.0, "pipeline_parallel_communication_time": 0.0}
_DEVICES = {"h100": "h100_sxm", "a100": "a100_sxm", "h800": "h800_sxm", "h20": "h20", "h200": "h200_sxm"}


class VidurPredictor:
    """Mixed into Vidur's base class by `mfuroof.adapters.vidur.register`; Vidur makes one for all replicas.

    Each stage takes an equal share of the step, so that the stages of a batch add up to it. The parts of an
    execution time are Vidur's: milliseconds of one layer.
    """

    execution_time: ClassVar[Callable[[dict[str, float], int], Any]]

    def __init__(self, predictor_config: Any, replica_config: Any, *others: Any, **more: Any) -> None:
        # Forks differ in what else they pass (cache, scheduler, metrics, simulation); each base class takes its own.
        base: Any = super()
        base.__init__(predictor_config, replica_config, *others, **more)
        if cache := getattr(self, "_cache_dir", ""):  # some schedulers keep what they planned there
            Path(cache).mkdir(parents=True, exist_ok=True)
        evaluator = evaluator_of(predictor_config, replica_config)
        self.embedded = Embedded(evaluator)
        self._parts = VidurParts.of(evaluator)
        self._stages = int(replica_config.num_pipeline_stages)
        self._stage_layers = int(replica_config.model_config.num_layers) // self._stages
        # Our layers may be other in number than Vidur's, where a model was named.
        self._scale = self._parts.layers / (self._stage_layers * self._stages)

    def get_execution_time(self, batch: Any, pipeline_stage: int) -> Any:
        """Return the execution time of one stage of a batch; of a batch on several groups, that of the slowest."""
        parallel = getattr(batch, "batch_mapping", None)
        if parallel is not None:
            each = [self.get_execution_time(part, pipeline_stage) for part in parallel.values()]
            return max(each, key=lambda time: time.total_time)
        return type(self).execution_time(self.slots(*requests_of(batch)), self._stage_layers)

    def to_dict(self) -> dict[str, Any]:
        """Return what tells this predictor from others; schedulers name their files on disk after it."""
        e = self.embedded.evaluator
        ranks = {"tp_size": e.parallel.tp_size, "pp_size": e.parallel.pp_size}
        model = {"model": e.model.name, "params": e.model.total_params, "weight_bytes": e.model.weight_bytes}
        return {
            "model_provider": "mfuroof",
            **model,
            "kv_dtype": e.model.kv_dtype,
            "hardware": e.hardware.name,
            "cost": e.cost,
            "engine": e.engine,
            **ranks,
            "stamp": kernel_stamp(),
        }

    def slots(self, context: list[int], new: list[int], decodes: list[bool], emits: list[bool]) -> dict[str, float]:
        """Return the slots of one batch by Vidur's names, Python floats. [ms per layer]"""
        sim, parts = self.embedded, self._parts
        if parts.additive:
            seconds = np.array(list(sim.step_components(context, new, decodes, emits).values()))
            row = (parts.weights @ seconds) * self._scale
            total = float(seconds.sum())
        else:  # components of a roofline do not add up: one slot has it all
            row, total = np.zeros(len(SLOTS)), 0.0
        if not total >= sim.min_step_s:  # also where it is no number: the whole step says so
            row[SLOTS.index("add")] += (sim.step(context, new, decodes, emits) - total) / (
                self._stage_layers * self._stages * MS
            )
        return _UNUSED | {_SLOT_NAMES[s]: value for s, value in zip(SLOTS, row.tolist(), strict=True)}


def requests_of(batch: Any) -> tuple[list[int], list[int], list[bool], list[bool]]:
    """Return context, new tokens, whether it decodes and whether it emits, of each request of either dialect."""
    requests = batch.requests
    new = getattr(batch, "num_q_tokens", None)
    if new is not None:
        # 0.0.26: KV lengths stand in the batch. Its Mnemosyne schedulers, which name groups, leave the new tokens out
        # of them; the others count them in. Where they plan ahead a request may be None.
        own = getattr(batch, "num_active_kvp_groups", None) is None
        context = [kv - q if own else kv for kv, q in zip(batch.num_kv_tokens, new, strict=False)]
        context += [r.num_processed_tokens for r in requests[len(context) :]]  # its Orca leaves prompts out of the list
        decodes = [r is not None and r.is_prefill_complete for r in requests]
        ends = [r is None or c + q >= r.num_prefill_tokens for r, c, q in zip(requests, context, new, strict=True)]
        return context, list(new), decodes, ends
    new = list(batch.num_tokens)
    context = [r._num_processed_tokens for r in requests]
    decodes = [r._is_prefill_complete for r in requests]
    ends = [c + n >= r._num_prefill_tokens for r, c, n in zip(requests, context, new, strict=True)]
    # a decode computes one token, whatever a scheduler has written beside it
    return context, [1 if d else n for d, n in zip(decodes, new, strict=True)], decodes, ends


def evaluator_of(predictor_config: Any, replica_config: Any) -> StepEvaluator:
    """Bind what Vidur's configuration describes.

    Raises
    ------
    UnknownNameError
        Its device stands for no GPU of the catalogue: give the field ``hardware``.
    """
    c, r = predictor_config, replica_config
    hardware = c.hardware or _DEVICES.get(str(r.device).lower(), str(r.device))
    try:
        gpu = get_hardware(hardware)
    except UnknownNameError as error:
        option = "--mfuroof_execution_time_predictor_config_hardware"
        raise UnknownNameError("hardware", hardware, error.known, f"Name the GPU with {option}.") from error
    return StepEvaluator(
        c.model or _model_of(r),
        gpu,
        tp_size=int(r.tensor_parallel_size),
        pp_size=int(r.num_pipeline_stages),
        cost=c.cost,
        engine=c.engine,
        weight_dtype=c.weight_dtype or None,
        kv_dtype=c.kv_dtype or None,
    )


def _model_of(replica_config: Any) -> ModelConfig:
    """Return the architecture that Vidur has, so that its memory planner and this predictor mean one model."""
    m = replica_config.model_config
    return ModelConfig(
        name=str(getattr(replica_config, "model_name", "")) or "vidur",
        hidden_size=m.embedding_dim,
        num_hidden_layers=m.num_layers,
        num_attention_heads=m.num_q_heads,
        num_key_value_heads=m.num_kv_heads,
        head_dim=m.embedding_dim // m.num_q_heads,
        intermediate_size=m.mlp_hidden_dim,
        vocab_size=m.vocab_size,
        hidden_act="silu" if m.use_gated_mlp else "gelu",
    )
