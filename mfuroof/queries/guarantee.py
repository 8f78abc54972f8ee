"""Where step times are known to rise along an axis, so that bisection finds what a full scan would."""

from __future__ import annotations

from mfuroof.step import StepEvaluator

__all__ = ["why_not_monotone"]

_HARMLESS = frozenset(
    {
        "transfer",
        "engine_habits",
        "static_scales",
        "engine_overheads",
        "collective",
        "sequence_overhead_s",
        "kernel_time_factor",
        "elementwise_bandwidth_efficiency",
        "elementwise_launch_s",
        "gemm_neighbours",
        "moe_distribution",
    }
)
"""Parameters that may differ from their defaults: they scale or choose curves, which are made monotone afterwards."""


def why_not_monotone(evaluator: StepEvaluator, axis: str) -> str:
    """Return why step times may fall as a shape grows along ``axis``; empty where they never do.

    They never do under our own conventions, for models of plain and latent attention: curves and grids are made
    monotone when an evaluator is bound, and the property tests of the package hold it to that (to rounding). What is
    not covered by them counts as not guaranteed, whether or not it happens to rise.
    """
    changed = set(evaluator.params.changed()) - _HARMLESS
    if "monotone" in changed:
        return "its curves are as measured, not made monotone (CostParams.monotone=False, as in every peer's preset)"
    if changed:
        return f"its parameters differ from the defaults: {', '.join(sorted(changed))}"
    for layer in evaluator.model.layers:
        attention = layer.attention
        if attention.linear or attention.mamba or attention.indexer or attention.compressed:
            return f"{evaluator.model.name} has layers of recurrent or sparse attention"
        if axis == "prefill_context" and (attention.sliding_window or attention.chunked):
            return f"{evaluator.model.name} has layers with a window, whose time dips a little along prefill_context"
    return ""
