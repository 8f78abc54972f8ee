"""Evaluators that differ from one in a rate of the device, or in the overhead beside its kernels."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mfuroof.engines import engine_profile
from mfuroof.errors import MfuroofWarning
from mfuroof.hardware import Hardware
from mfuroof.params import CostParams
from mfuroof.step import StepEvaluator

__all__ = ["OVERHEAD", "Binder", "resources", "scaled"]

OVERHEAD = "overhead"
"""Name of the time beside the kernels among the resources."""
_RATES = {
    "hbm": "hbm_bytes_per_s",
    "nvlink": "nvlink_bytes_per_s",
    "network": "network_bytes_per_s",
    "pcie": "pcie_bytes_per_s",
}
_OVERHEADS = (
    *("step_overhead_s", "prefill_overhead_s", "decode_overhead_s", "layer_overhead_s", "sequence_overhead_s"),
    *("prefill_request_overhead_s", "mixed_request_overhead_s"),
)


@dataclass(frozen=True, eq=False)
class Binder:
    """Makes evaluators that differ from one in the device only, with its measured utilisations."""

    source: StepEvaluator
    hardware: Hardware
    tables: Any

    @classmethod
    def of(cls, evaluator: StepEvaluator, tables: Any) -> Binder:
        """Return the binder of an evaluator that was made with ``tables``."""
        hardware = evaluator.hardware
        if evaluator.cost == "kernels" and tables is None:
            from mfuroof.ops.siblings import tables_for

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MfuroofWarning)
                found = tables_for(hardware, evaluator.engine, missing=evaluator.params.missing)
            if hardware.tables is None and found.gpu != hardware.name:  # keep to the relative, however far it moves
                hardware = replace(hardware, tables=found.gpu)
            tables = found  # looking for them again would take longer than all the rest
        return cls(evaluator, hardware, tables)

    def changed(self, name: str, cost: float) -> StepEvaluator:
        """Return the evaluator where one resource, or the overhead, costs ``cost`` times as much time."""
        if name == OVERHEAD:
            return self.evaluator(self.hardware, _with_overhead(self.source, cost))
        return self.evaluator(scaled(self.hardware, {name: 1.0 / cost}))

    def evaluator(self, hardware: Hardware, params: CostParams | None = None) -> StepEvaluator:
        """Return the evaluator on another device; what there was to warn about has been said."""
        e, p = self.source, self.source.parallel
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MfuroofWarning)
            return StepEvaluator(
                e.model, hardware, p.tp_size, p.pp_size, p.ep_size, p.dp_size,
                cost=e.cost, engine=e.engine, tables=self.tables, params=params or e.params,  # type: ignore[arg-type]
            )  # fmt: skip


def resources(hardware: Hardware) -> tuple[str, ...]:
    """Return the names of the rates a device has: memory, peaks, links."""
    peaks = tuple(f"peak_{dtype}" for dtype in hardware.peak_flops_per_s)
    return ("hbm", *peaks, *(name for name in ("nvlink", "network", "pcie") if getattr(hardware, _RATES[name]) > 0))


def scaled(hardware: Hardware, factors: Mapping[str, float]) -> Hardware:
    """Return a device whose rates are multiplied by factors; ``peak`` stands for all peaks."""
    changes: dict[str, Any] = {_RATES[n]: getattr(hardware, _RATES[n]) * f for n, f in factors.items() if n in _RATES}
    every = factors.get("peak", 1.0)
    peaks = {d: rate * every * factors.get(f"peak_{d}", 1.0) for d, rate in hardware.peak_flops_per_s.items()}
    return replace(hardware, peak_flops_per_s=peaks, **changes)


def _with_overhead(evaluator: StepEvaluator, factor: float) -> CostParams:
    """Return the evaluator's parameters with all time beside the kernels multiplied, the engine's own included."""
    params = evaluator.params
    times = {name: getattr(params, name) for name in _OVERHEADS}
    if evaluator.cost == "kernels" and params.engine_overheads:
        profile = engine_profile(evaluator.engine)
        for name in ("step_overhead_s", "layer_overhead_s", "sequence_overhead_s"):
            times[name] += getattr(profile, name)
        kernels = params.kernel_time_factor * profile.kernel_time_factor
        params = replace(params, engine_overheads=False, kernel_time_factor=kernels)
    return replace(params, **{name: time * factor for name, time in times.items()})
