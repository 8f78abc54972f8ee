"""What other systems reach on measured serving points, as published or measured; fractions."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PEERS", "PeerScore"]


class PeerScore(NamedTuple):
    """Errors of one system; None where they are not known."""

    system: str
    rows: str
    tpot_mean: float | None
    tpot_median: float | None
    ttft_median: float | None


PEERS = (
    PeerScore("AIConfigurator 0.12", "the serving points, 945 of 974 answered", 0.148, 0.117, 0.43),
    PeerScore("six fitted physical terms", "798 of the same, in sample", 0.105, 0.080, None),
    PeerScore("AIConfigurator 0.12", "3,287 rows on H100, H200 and B200, 851 failed", 0.284, 0.168, 0.48),
    PeerScore("AIConfigurator, roofline only", "the same 3,287 rows", 0.538, 0.538, 0.70),
    PeerScore("BLIS latency kernel, as claimed", "about 360 vLLM points", 0.119, None, 0.315),
    PeerScore("BLIS trained physics", "38 runs on H100", None, 0.065, 0.184),
    PeerScore("BLIS roofline", "the same 38 runs", None, 0.44, None),
    PeerScore("LLMServingSim 2.0", "4 configurations on the GPU it was profiled on", 0.017, None, 0.136),
)
"""The last figure of LLMServingSim is its largest, not a median."""
