"""`kv_capacity`: the memory left for the KV cache after weights, activations and reserves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import MAX_COUNT, Problems
from mfuroof._types import I64
from mfuroof.capacity.check import tp_obstacle, valid_tp_sizes
from mfuroof.capacity.inputs import Inputs, flat_inputs
from mfuroof.capacity.params import CapacityParams
from mfuroof.capacity.result import KvCapacity
from mfuroof.capacity.room import Context, memory_bytes, room_of
from mfuroof.hardware import Hardware, get_hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.precision import canonical_kv_dtype

__all__ = ["kv_capacity"]


def kv_capacity(
    model: ModelConfig | str,
    hardware: Hardware | str,
    tp_size: ArrayLike = 1,
    pp_size: ArrayLike = 1,
    ep_size: ArrayLike = 1,
    dp_size: ArrayLike = 1,
    *,
    block_size: int = 16,
    memory_utilization: ArrayLike = 0.9,
    kv_dtype: Any = None,
    weight_dtype: Any = None,
    weight_bytes_per_param: float | None = None,
    seq_len: ArrayLike | None = None,
    activation_bytes: ArrayLike | None = None,
    reserved_bytes: ArrayLike | None = None,
    params: CapacityParams | None = None,
) -> KvCapacity:
    """Return how much KV cache fits beside the weights; every argument but the first two may be an array.

    Parameters
    ----------
    model
        A model, or what `ModelConfig.from_hf` takes.
    hardware
        A device, or its name.
    tp_size, pp_size, ep_size, dp_size
        Parallel degrees as in `Parallel`.
    block_size
        Tokens of one KV block, a single number. [tokens]
    memory_utilization
        Share of the visible memory that may be used, in (0, 1]. [fraction]
    kv_dtype, weight_dtype
        Names of formats; None (or ``"auto"``) for the checkpoint's own. On a quantised checkpoint a weight format
        replaces that of the modules it quantises.
    weight_bytes_per_param
        One number for every parameter in place of formats, as in `ModelConfig.with_precision`. [bytes]
    seq_len
        Length for which sequences are counted; None to leave them out. [tokens]
    activation_bytes, reserved_bytes
        Amounts per rank in place of those of ``params``. [bytes]
    params
        What is kept back and how things are counted; None for our defaults.

    Returns
    -------
    KvCapacity
        Arrays of the shape the arguments broadcast to. What does not fit has 0 blocks, and the
        smallest ``tp_size`` that would.

    Raises
    ------
    InputError
        An argument is out of range; heads cannot be shared by ``tp_size`` ranks; more stages than layers; the device
        states no memory.
    UnknownNameError
        A model, device or format of that name is not known.

    Notes
    -----
    Per rank of a pipeline stage ``kv = memory * utilization - weights - activations - reserve``, blocks are
    ``floor(kv / (kv_bytes_per_token * block_size))``, and the stage with the fewest decides. A block spans all layers
    of the stage and no window shortens it; ``max_sequences`` counts windows and the states of linear attention and
    Mamba. ``dp_size`` attention ranks have that many caches.

    Examples
    --------
    >>> from mfuroof.models import ModelConfig
    >>> m = ModelConfig(hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    ...                 intermediate_size=14336, vocab_size=128256)
    >>> kv_capacity(m, "H100", tp_size=[1, 4], params=CapacityParams.blis()).num_kv_blocks
    array([ 26312, 135752])
    """
    model = model if isinstance(model, ModelConfig) else ModelConfig.from_hf(model)
    device = get_hardware(hardware)
    params = CapacityParams() if params is None else params
    degrees = {"tp_size": tp_size, "pp_size": pp_size, "ep_size": ep_size, "dp_size": dp_size}
    inputs = flat_inputs(degrees, memory_utilization, kv_dtype, weight_dtype, seq_len, activation_bytes, reserved_bytes)
    block = _checked_block_size(block_size, device)
    _check_degrees(model, inputs)
    context = Context(model, params, memory_bytes(device, params), block, weight_bytes_per_param)
    return KvCapacity.of(model.name, device.name, block, inputs, _columns(context, inputs))


def _checked_block_size(block_size: Any, device: Hardware) -> int:
    problems = Problems()
    block = problems.positive_int("block_size", block_size)
    if device.hbm_bytes <= 0:
        problems.add(f"{device.name}.hbm_bytes", "0", "the memory of the device", "Set it with dataclasses.replace.")
    problems.raise_if_any()
    return block


def _check_degrees(model: ModelConfig, inputs: Inputs) -> None:
    problems = Problems()
    for tp in np.unique(inputs.degrees[0]).tolist():
        if obstacle := tp_obstacle(model, tp):
            allowed = ", ".join(map(str, valid_tp_sizes(model)))
            problems.add("tp_size", tp, f"a number of ranks that can share {obstacle}: one of {allowed}")
    if (most := int(inputs.degrees[1].max(initial=1))) > model.num_hidden_layers:
        problems.add("pp_size", most, f"at most {model.num_hidden_layers}, the number of layers")
    problems.raise_if_any()
    for degrees in np.unique(inputs.degrees, axis=1).T.tolist():
        Parallel(*degrees)


def _columns(context: Context, inputs: Inputs) -> dict[str, Any]:
    n = inputs.memory_utilization.size
    out: dict[str, Any] = {
        name: np.zeros(n) for name in ("weight_bytes", "kv_bytes_per_token", "activation_bytes", "reserved_bytes")
    }
    for name in ("num_kv_blocks", "max_sequences", "smallest_tp_that_fits"):
        out[name] = np.zeros(n, np.int64)
    out["fits"] = np.zeros(n, bool)
    for parallel, kv, weight, at in _configurations(inputs):
        room = room_of(context, inputs, at, parallel, kv, weight)
        dp = parallel.dp_size
        out["num_kv_blocks"][at] = np.minimum(room.blocks * dp, MAX_COUNT)
        if room.sequences is not None:
            out["max_sequences"][at] = np.minimum(room.sequences * dp, MAX_COUNT)
        out["weight_bytes"][at], out["kv_bytes_per_token"][at] = room.weight_bytes, room.token_bytes
        out["activation_bytes"][at], out["reserved_bytes"][at] = room.activation_bytes, room.reserved_bytes
        out["fits"][at] = room.fits
        out["smallest_tp_that_fits"][at] = _smallest_tp(context, inputs, at, parallel, kv, weight)
    out["kv_capacity_tokens"] = np.minimum(out["num_kv_blocks"] * context.block_size, MAX_COUNT)
    if inputs.seq_len is None:
        del out["max_sequences"]
    return out


def _configurations(inputs: Inputs) -> Iterator[tuple[Parallel, str | None, str | None, I64]]:
    """Yield each distinct configuration with the positions of its elements."""
    names = [
        [None if v is None or str(v).lower() == "auto" else str(v) for v in column]
        for column in (inputs.kv_dtype, inputs.weight_dtype)
    ]
    known = [list(dict.fromkeys(column)) for column in names]
    codes = [[k.index(v) for v in column] for k, column in zip(known, names, strict=True)]
    rows = np.vstack([inputs.degrees, *codes])
    unique, inverse = np.unique(rows, axis=1, return_inverse=True)
    for i, (tp, pp, ep, dp, kv_code, weight_code) in enumerate(unique.T.tolist()):
        kv = known[0][kv_code]
        at = np.flatnonzero(inverse.ravel() == i)
        yield Parallel(tp, pp, ep, dp), None if kv is None else canonical_kv_dtype(kv), known[1][weight_code], at


def _smallest_tp(
    context: Context, inputs: Inputs, at: I64, parallel: Parallel, kv: str | None, weight: str | None
) -> I64:
    """Return the smallest tensor-parallel degree with which each element fits, other degrees kept; 0 if none does."""
    smallest = np.zeros(at.size, np.int64)
    for tp in valid_tp_sizes(context.model(weight)):
        if tp * parallel.dp_size % parallel.ep_size:
            continue
        open_ = np.flatnonzero(smallest == 0)
        if not open_.size:
            break
        other = Parallel(tp, parallel.pp_size, parallel.ep_size, parallel.dp_size)
        smallest[open_[room_of(context, inputs, at[open_], other, kv, weight).fits]] = tp
    return smallest
