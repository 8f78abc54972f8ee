"""`RequestTimes`: what happened to each request of a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mfuroof._types import F64, I64
from mfuroof.units import MS

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RequestTimes"]

_FIGURES = ("ttft_s", "tpot_s", "e2e_latency_s")


@dataclass(frozen=True, repr=False, eq=False)
class RequestTimes:
    """Times of n requests; arrays are read-only, of shape (n,), NaN for requests that fit no KV cache.

    Parameters
    ----------
    input_len, output_len
        Prompt and generated tokens. [tokens]
    arrival_s, first_token_s, end_s
        Submission by the client, first and last token, from the start of the replay. [s]
    steps, preemptions
        Engine steps run, and requests that were thrown out of a full cache, over all engines.
    num_gpus
        GPUs of the replica.
    """

    input_len: I64
    output_len: I64
    arrival_s: F64
    first_token_s: F64
    end_s: F64
    steps: int
    preemptions: int
    num_gpus: int

    def __len__(self) -> int:
        return self.arrival_s.size

    @property
    def ttft_s(self) -> F64:
        """Time to first token (n,). [s]"""
        return self.first_token_s - self.arrival_s

    @property
    def e2e_latency_s(self) -> F64:
        """Submission to last token (n,). [s]"""
        return self.end_s - self.arrival_s

    @property
    def tpot_s(self) -> F64:
        """(End - first token) / (output_len - 1); NaN where there is one token only (n,). [s]"""
        gaps = self.output_len - 1
        return np.divide(self.end_s - self.first_token_s, gaps, out=np.full(len(self), np.nan), where=gaps > 0)

    @property
    def failed(self) -> int:
        """Requests that no KV cache of this size can hold."""
        return int(np.isnan(self.end_s).sum())

    @property
    def duration_s(self) -> float:
        """First arrival to last token; NaN without requests. [s]"""
        served = ~np.isnan(self.end_s)
        return float(self.end_s[served].max() - self.arrival_s[served].min()) if served.any() else float("nan")

    @property
    def output_tokens_per_s_per_gpu(self) -> float:
        """Generated tokens of the requests served over the duration. [tokens/s]"""
        served = ~np.isnan(self.end_s)
        return float(self.output_len[served].sum() / self.duration_s / self.num_gpus)

    def mean(self) -> dict[str, float]:
        """Return the mean of TTFT, TPOT and end-to-end latency over the requests served. [s]"""
        return {name: _mean(getattr(self, name)) for name in _FIGURES}

    def percentiles(self, *q: float) -> dict[str, F64]:
        """Return percentiles ``q`` (50, 90, 95 and 99 by default) of TTFT, TPOT and end-to-end latency. [s]"""
        wanted = q or (50.0, 90.0, 95.0, 99.0)
        columns = {name: getattr(self, name) for name in _FIGURES}
        kept = {name: column[~np.isnan(column)] for name, column in columns.items()}
        return {
            name: np.percentile(column, wanted) if column.size else np.full(len(wanted), np.nan)
            for name, column in kept.items()
        }

    def to_arrow(self) -> pa.Table:
        """Return an Arrow table with one row a request."""
        import pyarrow as pa

        names = ("input_len", "output_len", "arrival_s", "first_token_s", "end_s", *_FIGURES)
        return pa.table({name: pa.array(getattr(self, name)) for name in names})

    def __repr__(self) -> str:
        head = f"RequestTimes({len(self)} requests, {self.failed} do not fit, {self.preemptions} preemptions)"
        if self.failed == len(self):
            return head
        rows = [f"{'ms':<14}{'mean':>10}{'p50':>10}{'p95':>10}{'p99':>10}"]
        mean, spread = self.mean(), self.percentiles(50.0, 95.0, 99.0)
        for name in _FIGURES:
            figures = (mean[name], *spread[name])
            rows.append(f"{name.removesuffix('_s'):<14}" + "".join(f"{x / MS:>10.4g}" for x in figures))
        return "\n".join([head, *rows])


def _mean(column: F64) -> float:
    kept = column[~np.isnan(column)]
    return float(np.mean(kept)) if kept.size else float("nan")
