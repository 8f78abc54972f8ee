"""The measured tables of one GPU and engine as the operations read them: one `GemmTable` a dtype, message curves."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from mfuroof._types import freeze
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.ops.curves import Curve, fastest
from mfuroof.ops.gemm import GemmTable
from mfuroof.ops.moe import ExpertsShape, MoeTable
from mfuroof.ops.rooflines import GemmRoofline
from mfuroof.ops.select import holdings, rows
from mfuroof.params import MOE_DISTRIBUTIONS, CostParams
from mfuroof.precision import Format, format_of
from mfuroof.tables.store import KernelTables, available, load_tables

__all__ = ["MeasuredOps"]

BORROWED_GEMM = {("trtllm", "nvfp4"): "vllm"}
"""Engines whose table of a format times more than the product: at each shape the lower of theirs and another engine's.

TensorRT-LLM's NVFP4 rows include a pass over the activation that takes 9 us at k = 8192, 4 at 3584 and nothing at
1024, where FP8's was measured on its own; with it, Llama-70B steps on B200 come out 27 % too slow.
"""
SAME_RATE = {"fp16": "bf16"}
"""Formats whose kernels run at the rate and traffic of another, which was measured."""
ALSO_RUNS = {"fp8": ("fp8_block",)}
"""Expert kernels that do the same work, of which the faster one counts: per-tensor FP8 experts of vLLM on Hopper were
measured at 1.6 ms where the block-scaled kernel takes 0.36 and even bf16 0.63 (Llama-4-Scout, 32 tokens); served, that
model decodes three times as fast as those rows say."""
STAND_INS = {
    "bf16": ("bf16",),
    "tf32": ("bf16",),
    "fp8": ("fp8", "fp8_block", "bf16"),
    "int8": ("int8", "fp8", "bf16"),
    "fp4": ("nvfp4", "fp8", "bf16"),
}
"""Measured formats that stand in for one of a compute class, the nearest first: their utilisation is held."""
ROOFLINE_KNOTS = 2.0 ** np.arange(16)
"""Where a roofline that stands in for a missing table is sampled: 1 to 32,768."""


@dataclass(eq=False)
class MeasuredOps:
    """Reads curves from the tables, applying the policy for missing ones.

    Attributes
    ----------
    tables, reference
        The tables, and the GPU they were measured on.
    hardware
        The GPU that is asked for; where it differs, utilisations are held.
    params
        Rules.
    """

    tables: KernelTables
    hardware: Hardware
    params: CostParams
    reference: Hardware
    _gemm: dict[str, GemmTable | None] = field(default_factory=dict)

    def gemm_curve(self, dtype: str, n: int, k: int) -> Curve:
        """Return the time of a GEMM with ``n`` out and ``k`` in features over its tokens.

        Raises
        ------
        MissingTableError
            No table, or none near that shape, and ``params.missing`` is ``"raise"``.
        """
        table = self._gemm_table(dtype)
        try:
            if table is None:
                raise self._missing(f"{dtype} GEMM", "gemm", "dtype")
            curve = table.curve(n, k, self.params.gemm_neighbours)
            return self._with_static_scales(curve, dtype, n, k) if self._scales_are_static(dtype) else curve
        except MissingTableError:
            if self.params.missing == "raise":
                raise
        time = GemmRoofline.of(self.hardware, format_of(dtype)).time_s(ROOFLINE_KNOTS, n, k)
        return self._analytic(time)

    def experts_curve(self, dtype: str, shape: ExpertsShape, num_matrices: int, entering: float) -> Curve:
        """Return the time of routed experts over local tokens, ``entering`` of which reach the layer for each.

        Raises
        ------
        MissingTableError
            No experts of that dtype or a related one were measured and ``params.missing`` is ``"raise"``.
        """
        curves = []
        for name in (dtype, *ALSO_RUNS.get(dtype, ())):
            table = self._experts_table(name, shape)
            if table is not None:
                curve = table.curve(shape, num_matrices, entering)
                curves.append(curve if name == dtype else curve.substituted())
        if curves:
            return fastest(curves)
        if self.params.missing == "raise":
            raise self._missing(f"{dtype} experts", "moe", "dtype", "distribution")
        rate = GemmRoofline.of(self.hardware, format_of(dtype))
        return self._analytic(shape.roofline_time_s(ROOFLINE_KNOTS * entering, num_matrices, rate))

    def _scales_are_static(self, dtype: str) -> bool:
        """Say whether activation scales come with the checkpoint, where the tables find them at run time."""
        return dtype == "fp8" and self.params.static_scales and self.tables.has("act_scale")

    def _with_static_scales(self, curve: Curve, dtype: str, n: int, k: int) -> Curve:
        """Return a GEMM without finding the scale of its input, which the engine's measurement includes."""
        found = rows(self.tables, "act_scale", dtype="fp8")
        widths = np.unique(found["k"])
        nearest = found["k"] == widths[np.argmin(np.abs(np.log2(widths / k)))]
        m, saved = found["m"][nearest].astype(float), found["latency_s"][nearest]
        saved = saved * self.reference.hbm_bytes_per_s / self.hardware.hbm_bytes_per_s  # one pass over the activation
        saved = np.interp(curve.knots, m, saved) + np.maximum(curve.knots - m[-1], 0.0) * saved[-1] / m[-1]
        floor = GemmRoofline.of(self.hardware, format_of(dtype)).time_s(curve.knots, n, k)
        time = np.maximum(curve.time_s - saved, floor)
        return replace(curve, time_s=freeze(time), beyond_s=max(curve.beyond_s - saved[-1] / curve.knots[-1], 0.0))

    def _gemm_table(self, dtype: str) -> GemmTable | None:
        """Return the GEMM table of ``dtype`` or of the nearest format that was measured."""
        if dtype not in self._gemm:
            found, measured = self._rows_of("gemm", dtype)
            lender = BORROWED_GEMM.get((self.tables.engine, dtype))
            if measured is not None and lender is not None and self.params.static_scales:
                found = self._lower(found, lender, measured.name)
            self._gemm[dtype] = None
            if measured is not None:
                label = f"{measured.name} GEMM on {self.tables.gpu} ({self.tables.engine})"
                reference = GemmRoofline.of(self.reference, measured)
                mine = GemmRoofline.of(self.hardware, format_of(SAME_RATE.get(dtype, dtype)))
                n, k, m, latency_s = (found[name] for name in ("n", "k", "m", "latency_s"))
                stand_in = self._stand_in(measured, dtype)
                despike = self.params.monotone
                self._gemm[dtype] = GemmTable(label, n, k, m, latency_s, reference, mine, stand_in, despike)
        return self._gemm[dtype]

    def _lower(self, found: dict[str, np.ndarray], engine: str, dtype: str) -> dict[str, np.ndarray]:
        """Return rows with the lower of their latency and another engine's at the same shape."""
        if engine not in available().get(self.tables.gpu, {}):
            return found
        other = rows(load_tables(self.tables.gpu, engine), "gemm", dtype=dtype)
        if not other["latency_s"].size:
            return found
        both = np.concatenate([_shape_code(found), _shape_code(other)])
        shapes, place = np.unique(both, return_inverse=True)
        lowest = np.full(shapes.size, np.inf)
        np.minimum.at(lowest, place, np.concatenate([found["latency_s"], other["latency_s"]]))
        return {**found, "latency_s": lowest[place[: found["latency_s"].size]]}

    def _experts_table(self, dtype: str, shape: ExpertsShape) -> MoeTable | None:
        """Return the experts of the distribution that is asked for, or of the next one that was measured."""
        wanted = self.params.moe_distribution
        first = None
        for distribution in (wanted, *(d for d in MOE_DISTRIBUTIONS if d != wanted)):
            found, measured = self._rows_of("moe", dtype, distribution=distribution)
            if measured is None:
                continue
            reference = GemmRoofline.of(self.reference, measured)
            mine = GemmRoofline.of(self.hardware, format_of(SAME_RATE.get(dtype, dtype)))
            table = MoeTable.from_rows(
                found, reference, mine, self._stand_in(measured, dtype), self.params.monotone
            )
            if shape in table.shapes:
                return table
            first = first or table
        return first

    def _rows_of(self, family: str, dtype: str, **where: str) -> tuple[dict[str, np.ndarray], Format | None]:
        """Return the rows of ``dtype``, or of the first of its stand-ins that was measured."""
        for name in (SAME_RATE.get(dtype, dtype), *STAND_INS[format_of(dtype).compute_class]):
            found = rows(self.tables, family, dtype=name, **where)
            if found["latency_s"].size:
                return found, format_of(name)
        return {}, None

    def _stand_in(self, measured: Format, dtype: str) -> bool:
        return self.hardware != self.reference or measured.name != SAME_RATE.get(dtype, dtype)

    def _missing(self, what: str, family: str, *columns: str) -> MissingTableError:
        return MissingTableError(
            f"{what} on {self.tables.gpu} ({self.tables.engine})",
            holdings(self.tables, family, *columns),
            'missing="roofline" prices it by its roofline, "nan" leaves it open.',
        )

    def _analytic(self, time: np.ndarray) -> Curve:
        """Return a curve on `ROOFLINE_KNOTS` that stands for a missing table."""
        nan = self.params.missing == "nan"
        code = Source.MISSING if nan else Source.ROOFLINE
        beyond = (time[-1] - time[-2]) / (ROOFLINE_KNOTS[-1] - ROOFLINE_KNOTS[-2])
        return Curve(
            freeze(ROOFLINE_KNOTS),
            freeze(time * np.nan if nan else time),
            float("nan") if nan else float(beyond),
            freeze(np.full(time.size, code), np.uint8),
        )


def _shape_code(found: dict[str, np.ndarray]) -> np.ndarray:
    """Return one integer for each (n, k, m); every size is below 2**20."""
    return (found["n"] << 40) | (found["k"] << 20) | found["m"]
