"""The measured tables of one GPU and engine as the operations read them: one `GemmTable` a dtype, message curves."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mfuroof._types import freeze
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.ops.comm import collective_curve
from mfuroof.ops.curves import Curve, affine_curve
from mfuroof.ops.gemm import GemmTable
from mfuroof.ops.moe import ExpertsShape, MoeTable
from mfuroof.ops.select import holdings, rows
from mfuroof.params import MOE_DISTRIBUTIONS, CostParams
from mfuroof.precision import format_of
from mfuroof.tables.store import KernelTables

__all__ = ["MeasuredOps"]

SAME_RATE = {"fp16": "bf16"}
"""Formats whose kernels run at the rate and traffic of another, which was measured."""
SEND_LATENCY_S = 10e-6
"""Fixed time of a point-to-point send between pipeline stages (AIConfigurator's figure). [s]"""
ROOFLINE_KNOTS = 2.0 ** np.arange(16)
"""Where a roofline that stands in for a missing table is sampled: 1 to 32,768."""


@dataclass(eq=False)
class MeasuredOps:
    """Reads curves from the tables, applying the policy for missing ones."""

    tables: KernelTables
    hardware: Hardware
    params: CostParams
    _gemm: dict[str, GemmTable | None] = field(default_factory=dict)

    def gemm_table(self, dtype: str) -> GemmTable | None:
        """Return the GEMM table of ``dtype``, or None where there is none."""
        if dtype not in self._gemm:
            self._gemm[dtype] = self._read_gemm(dtype)
        return self._gemm[dtype]

    def gemm_curve(self, dtype: str, n: int, k: int) -> Curve:
        """Return the time of a GEMM with ``n`` out and ``k`` in features over its tokens.

        Raises
        ------
        MissingTableError
            No table, or none near that shape, and ``params.missing`` is ``"raise"``.
        """
        table = self.gemm_table(dtype)
        try:
            if table is None:
                have = holdings(self.tables, "gemm", "dtype")
                raise MissingTableError(
                    f"{dtype} GEMM on {self.tables.gpu} ({self.tables.engine})",
                    have,
                    'missing="roofline" prices it by its roofline, "nan" leaves it open.',
                )
            return table.curve(n, k, self.params.gemm_neighbours)
        except MissingTableError:
            if self.params.missing == "raise":
                raise
        m = ROOFLINE_KNOTS
        compute = 2.0 * m * n * k / self.hardware.peak(dtype)
        bytes_moved = format_of(dtype).bytes_per_weight * n * k + 2.0 * m * (n + k)
        time = np.maximum(compute, bytes_moved / self.hardware.hbm_bytes_per_s)
        return self._analytic(time, (time[-1] - time[-2]) / (m[-1] - m[-2]))

    def collective_curve(self, op: str, num_gpus: int, elements_per_token: float) -> Curve:
        """Return the time of a collective on 16-bit activations over the tokens of a step.

        Parameters
        ----------
        op
            ``"all_reduce"``, ``"all_gather"``, ``"reduce_scatter"`` or ``"all_to_all"``.
        num_gpus
            Ranks taking part, at least 2.
        elements_per_token
            Elements of the whole vector (gathered, reduced) that one token of this rank stands for.

        Raises
        ------
        MissingTableError
            The operation was not measured for any number of GPUs and ``params.missing`` is ``"raise"``.

        Notes
        -----
        Another number of ranks than the measured ones takes the nearest measured one: its shortest time once more
        for each doubling of the ranks, and the rest scaled by the bytes each rank moves, (N - 1)/N, and by the link
        rates where it leaves the NVLink domain.
        """
        for backend, dtype in (("custom", "bf16"), ("nccl", "fp16")):  # NCCL was measured with fp16, as large
            measured = rows(self.tables, "comm", op=op, backend=backend, dtype=dtype)
            if not measured["latency_s"].size:
                continue
            sizes = np.unique(measured["num_gpus"])
            nearest = int(sizes[np.argmin(np.abs(np.log2(sizes / num_gpus)))])
            mine = measured["num_gpus"] == nearest
            elements, latency = measured["elements"][mine].astype(float), measured["latency_s"][mine]
            if nearest == num_gpus:
                return collective_curve(elements, latency, elements_per_token)
            launch = latency.min()  # does not grow with the bytes: one more round for each doubling of the ranks
            rounds = np.log2(2.0 * num_gpus) / np.log2(2.0 * nearest)
            latency = launch * rounds + (latency - launch) * self._rank_scale(nearest, num_gpus)
            return collective_curve(elements, latency, elements_per_token, Source.SUBSTITUTED)
        if self.params.missing == "raise":
            raise MissingTableError(
                f"{op} over {num_gpus} GPUs on {self.tables.gpu} ({self.tables.engine})",
                holdings(self.tables, "comm", "op", "backend", "dtype", "num_gpus"),
                'missing="roofline" prices it by the link rate, "nan" leaves it open.',
            )
        trips = 2.0 if op == "all_reduce" else 1.0  # a ring all-reduce is a reduce-scatter and an all-gather
        per_token = trips * 2.0 * elements_per_token * (num_gpus - 1) / num_gpus / self._link_bytes_per_s(num_gpus)
        return self._analytic(per_token * ROOFLINE_KNOTS, per_token)

    def send_curve(self, elements_per_token: float) -> Curve:
        """Return the time to hand activations to the next pipeline stage: bytes over the link, and a launch."""
        per_token = 2.0 * elements_per_token / self._link_bytes_per_s(self.hardware.num_nvlink_gpus + 1)
        return affine_curve(SEND_LATENCY_S, per_token)

    def _rank_scale(self, measured: int, wanted: int) -> float:
        moved = (wanted - 1) / wanted * measured / (measured - 1)
        return moved * self._link_bytes_per_s(measured) / self._link_bytes_per_s(wanted)

    def _link_bytes_per_s(self, num_gpus: int) -> float:
        """Return the slowest link among that many GPUs: NVLink inside its domain, the network beyond."""
        h = self.hardware
        inside = h.nvlink_bytes_per_s or h.pcie_bytes_per_s
        outside = h.network_bytes_per_s or h.pcie_bytes_per_s
        link = inside if num_gpus <= h.num_nvlink_gpus or not outside else outside
        return link or h.pcie_bytes_per_s or float("inf")

    def experts_curve(self, dtype: str, shape: ExpertsShape, num_matrices: int, entering: float) -> Curve:
        """Return the time of routed experts over local tokens, ``entering`` of which reach the layer for each.

        Raises
        ------
        MissingTableError
            No experts of that dtype were measured and ``params.missing`` is ``"raise"``.
        """
        table = self._read_experts(dtype)
        if table is not None:
            return table.curve(shape, num_matrices, entering)
        if self.params.missing == "raise":
            raise MissingTableError(
                f"{dtype} experts on {self.tables.gpu} ({self.tables.engine})",
                holdings(self.tables, "moe", "dtype", "distribution"),
                'missing="roofline" prices them by their roofline, "nan" leaves them open.',
            )
        tokens = ROOFLINE_KNOTS * entering
        rate = self.hardware.peak(dtype), format_of(dtype).bytes_per_weight, self.hardware.hbm_bytes_per_s
        time = shape.roofline_time_s(tokens, num_matrices, *rate)
        return self._analytic(time, (time[-1] - time[-2]) / (ROOFLINE_KNOTS[-1] - ROOFLINE_KNOTS[-2]))

    def _read_experts(self, dtype: str) -> MoeTable | None:
        wanted = self.params.moe_distribution
        for distribution in (wanted, *(d for d in MOE_DISTRIBUTIONS if d != wanted)):
            found = rows(self.tables, "moe", dtype=SAME_RATE.get(dtype, dtype), distribution=distribution)
            if found["latency_s"].size:
                return MoeTable.from_rows(
                    found,
                    peak_flops_per_s=self.hardware.peak(dtype),
                    hbm_bytes_per_s=self.hardware.hbm_bytes_per_s,
                    bytes_per_weight=format_of(dtype).bytes_per_weight,
                )
        return None

    def _analytic(self, time: np.ndarray, beyond_s: float) -> Curve:
        nan = self.params.missing == "nan"
        code = Source.MISSING if nan else Source.ROOFLINE
        return Curve(
            freeze(ROOFLINE_KNOTS),
            freeze(time * np.nan if nan else time),
            float("nan") if nan else float(beyond_s),
            freeze(np.full(time.size, code), np.uint8),
        )

    def _read_gemm(self, dtype: str) -> GemmTable | None:
        found = rows(self.tables, "gemm", dtype=SAME_RATE.get(dtype, dtype))
        if found["latency_s"].size == 0:
            return None
        fmt = format_of(dtype)
        return GemmTable(
            label=f"{dtype} GEMM on {self.tables.gpu} ({self.tables.engine})",
            n=found["n"],
            k=found["k"],
            m=found["m"],
            latency_s=found["latency_s"],
            peak_flops_per_s=self.hardware.peak(dtype),
            hbm_bytes_per_s=self.hardware.hbm_bytes_per_s,
            bytes_per_element=2.0 if fmt.compute_class == "bf16" else fmt.bytes_per_weight,
        )
