"""Elementwise kernels, priced by the bytes they move: no table holds them, and bandwidth binds them all."""

from __future__ import annotations

from mfuroof.ops.curves import Op, affine_curve

__all__ = ["elementwise"]


def elementwise(
    name: str,
    count: float,
    bytes_per_token: float,
    *,
    hbm_bytes_per_s: float,
    efficiency: float,
    launch_s: float,
) -> Op:
    """Return an elementwise operation over the tokens of a step.

    Its time is ``bytes / (efficiency * bandwidth) + launch``, the form NVIDIA AIConfigurator uses for norms,
    activations and embedding gathers.

    Parameters
    ----------
    name, count
        Component and calls a step.
    bytes_per_token
        Bytes read and written for one token by one call. [bytes]
    hbm_bytes_per_s, efficiency, launch_s
        Bandwidth [bytes/s], the share of it reached [fraction], and the fixed time of a call [s].
    """
    curve = affine_curve(launch_s, bytes_per_token / (efficiency * hbm_bytes_per_s))
    return Op(name, "tokens", count, curve, bytes_per_count=bytes_per_token, resource="memory")
