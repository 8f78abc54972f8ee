"""Communication between tensor-parallel ranks at link bandwidth, without latency."""

from __future__ import annotations

from mfuroof.errors import InputError, Problem
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS

__all__ = ["comm_seconds_per_token", "link_rate"]

ALL_REDUCES = 2
"""Per layer: behind the attention and behind the MLP."""


def link_rate(hardware: Hardware, ranks: int) -> float:
    """Return the bandwidth of the slowest link a group of ranks crosses, one direction per GPU. [bytes/s]

    The fast link inside its domain, the host link where there is none, the network beyond the domain.

    Raises
    ------
    InputError
        The GPU has no such link.
    """
    inside = hardware.nvlink_bytes_per_s or hardware.pcie_bytes_per_s
    beyond = ranks > hardware.num_nvlink_gpus and hardware.network_bytes_per_s > 0
    rate = hardware.network_bytes_per_s if beyond else inside
    if rate <= 0:
        raise InputError(
            Problem(
                f"{hardware.name}.nvlink_bytes_per_s",
                "no link",
                f"one between {ranks} GPUs",
                'Add it with dataclasses.replace, or set tp_communication="none".',
            )
        )
    return rate


def comm_seconds_per_token(
    model: ModelConfig, hardware: Hardware, parallel: Parallel, params: CostParams, default: str
) -> float:
    """Return the communication time of one token over all layers. [s]

    ``"ring"``: two all-reduces a layer among the tensor-parallel ranks, 2 (n - 1) / n vectors each. ``"world"``: two
    transfers of one vector for each GPU, and one such all-reduce beside them.
    """
    rule = params.tp_communication or default
    tp, world = parallel.tp_size, parallel.num_gpus
    if rule == "none" or world == 1 or (rule == "ring" and tp == 1):
        return 0.0
    vector = model.hidden_size * FORMATS[model.dtype].bytes_per_weight
    efficiency = params.link_efficiency * params.bytes_per_peak_byte
    layers = model.num_hidden_layers
    ring = 2.0 * (tp - 1) / tp * vector / (link_rate(hardware, tp) * efficiency) if tp > 1 else 0.0
    if rule == "ring":
        return ALL_REDUCES * layers * ring
    return layers * (2.0 * vector * world / (link_rate(hardware, world) * efficiency) + ring)
