"""The work of a uniform transformer: formulas of BLIS's rooflines, one symbol a field.

Everything is divided by tp_size: nothing is replicated.

References
----------
.. [1] github.com/inference-sim/inference-sim, ``sim/latency`` (roofline step time), state of August 2026.
"""

from __future__ import annotations

from mfuroof.costs.uniform_model import UniformModel
from mfuroof.costs.workload import NO_WORK, Experts, Reach, Work, Workload
from mfuroof.hardware import Hardware
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams

__all__ = ["peak_rate", "uniform_work"]


def peak_rate(u: UniformModel, hardware: Hardware) -> float:
    """Return the rate every operation is charged at: FP8 for weights of exactly one byte, else 16-bit. [FLOP/s]"""
    fp8 = hardware.peak_flops_per_s.get("fp8", 0.0)
    return fp8 if u.weight_bytes == 1.0 and fp8 > 0 else hardware.peak("bf16")


def uniform_work(u: UniformModel, hardware: Hardware, parallel: Parallel, params: CostParams) -> Workload:
    """Return one GPU's share of the work of a uniform transformer."""
    tp, peak, layers, d = parallel.tp_size, peak_rate(u, hardware), u.num_layers, u.hidden_size

    def work(flops: float) -> Work:
        return Work(flops / tp, flops / tp / peak)

    products = 2.0 * u.attention_params * layers
    products += 2.0 * (u.expert_params * u.experts_per_token * u.moe_layers + u.dense_params * u.dense_layers)
    vector = params.rotary_flops_per_element * d * layers
    pair = work((4.0 * u.heads * u.head_dim + params.softmax_flops_per_score * u.heads) * layers)
    experts: tuple[Experts, ...] = ()
    if u.moe_layers:
        bytes_per_expert = u.weight_bytes * u.moe_layers * u.expert_params / tp
        experts = (Experts(u.num_experts, u.experts_per_token, bytes_per_expert),)
    kv_bytes = u.kv_elements * u.act_bytes / tp
    return Workload(
        token=work(products + vector),
        reaches=(Reach(None, pair, pair, NO_WORK, kv_bytes),),
        dense_bytes=u.weight_bytes * (u.attention_params * layers + u.dense_params * u.dense_layers) / tp,
        experts=experts,
        kv_write_bytes=kv_bytes,
        activation_bytes=layers * d * u.act_bytes / tp,
    )
