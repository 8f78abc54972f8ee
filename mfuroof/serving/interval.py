"""How far serving figures may be off: factors around them within which 80 % of measured points lie."""

from __future__ import annotations

import numpy as np

from mfuroof._types import F64

__all__ = ["FIGURES", "TTFT_HALF_WIDTH", "half_widths"]

TTFT_HALF_WIDTH = 0.6
"""What queues, tokenizers and servers add to the uncertainty of a first token: with it four fifths of the development
points (974, three engines, H100 and B200) lie within the factor; most of those that do not are slower."""

FIGURES = ("ttft_s", "tpot_s", "itl_s", "e2e_latency_s", "requests_per_s", "output_tokens_per_s_per_gpu",
           "tokens_per_s_per_gpu")  # fmt: skip
"""Figures of a `ServingResult` that have an interval."""


def half_widths(step: F64, ttft_s: F64, decode_s: F64) -> tuple[F64, F64, F64]:
    """Return half-widths of TTFT, TPOT and end-to-end latency, relative to them. [fraction]

    Parameters
    ----------
    step
        Half-width of the decode step, relative to it: the TPOT, a sum of such steps, errs as they do. [fraction]
    ttft_s, decode_s
        Time to the first token, and from there to the last. [s]

    Notes
    -----
    The end-to-end latency takes the mean of both, weighted by the times: errors of a model or a GPU go the same way.
    """
    ttft = np.hypot(step, TTFT_HALF_WIDTH)
    whole = ttft_s + decode_s
    share = np.divide(ttft_s, whole, out=np.ones_like(whole), where=np.isfinite(whole) & (whole > 0))
    return ttft, step, share * ttft + (1.0 - share) * step
