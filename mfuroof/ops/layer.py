"""What every operation of a forward pass is built from: the model, its parallelism and the measured tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfuroof.models import ModelConfig
from mfuroof.ops.comm import Collectives
from mfuroof.ops.curves import Curve, Op
from mfuroof.ops.elementwise import elementwise
from mfuroof.ops.sources import MeasuredOps
from mfuroof.parallel import Parallel
from mfuroof.precision import format_of

__all__ = ["ACTIVATION_BYTES", "Builder"]

ACTIVATION_BYTES = 2
"""Of one element of the residual stream and of what kernels hand on: 16-bit in every engine. [bytes]"""


@dataclass(frozen=True, eq=False)
class Builder:
    """Makes the operations of one GPU."""

    model: ModelConfig
    parallel: Parallel
    measured: MeasuredOps
    collectives: Collectives

    def elementwise(self, name: str, count: float, bytes_per_token: float) -> Op:
        """Return an elementwise operation that moves ``bytes_per_token`` bytes a call. [bytes]"""
        p = self.measured.params
        return elementwise(
            name,
            count,
            bytes_per_token,
            hbm_bytes_per_s=self.measured.hardware.hbm_bytes_per_s,
            efficiency=p.elementwise_bandwidth_efficiency,
            launch_s=p.elementwise_launch_s,
        )

    def gemm(
        self, name: str, count: float, dtype: str, n: int, k: int, axis: Literal["tokens", "sequences"] = "tokens"
    ) -> Op:
        """Return a matrix product with ``n`` out and ``k`` in features of this rank's shard.

        Its traffic is that of the measured kernels, which quantise their input: 16-bit activations in and out, whatever
        the weights. The bound of `GemmRoofline`, which scales utilisations, is the product's alone, without that pass.
        """
        fmt = format_of(dtype)
        return Op(
            name,
            axis,
            count,
            self.measured.gemm_curve(fmt.name, n, k),
            flops_per_count=2.0 * n * k,
            peak_flops_per_s=self.measured.hardware.peak(fmt.name),
            fixed_bytes=fmt.matrix_bytes(n, k),
            bytes_per_count=float(ACTIVATION_BYTES * (n + k)),
        )

    def collective(self, op: str, num_gpus: int, elements_per_token: float) -> Curve:
        """Return the time of a collective over the tokens of a step, non-decreasing where ``params.monotone`` says so.

        Measured ones fall by up to a tenth from one message to a larger one, and single shots take ten times as long.
        """
        curve = self.collectives.curve(op, num_gpus, elements_per_token)
        return curve.rising() if self.measured.params.monotone else curve
