"""vllm-sr-sim (``fleet_sim``): a GPU profile for its fleets, which asks for averages."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from mfuroof._boundary import Problems
from mfuroof.embedding import Embedded
from mfuroof.step import StepEvaluator

__all__ = ["MfuroofGpuProfile"]


class MfuroofGpuProfile:
    """What `fleet_sim.gpu_profiles.protocol.GpuProfile` asks for, by structure: nothing of it is imported.

    Parameters
    ----------
    evaluator
        A bound model; one profile stands for one replica, whatever its number of GPUs.
    cost_per_hr
        Price of a replica. [$/h]
    chunk
        Tokens of a prefill chunk. [tokens]
    block_size
        Tokens of a KV block. [tokens]
    max_num_seqs
        Most sequences of a step, as engines limit them. [requests]
    memory_utilization
        Share of GPU memory the engine may use, in (0, 1].
    power_idle_w, power_nominal_w
        Power of a replica with one and with ``max_num_seqs`` requests; 0 where it is not known. [W]

    Raises
    ------
    InputError
        Values out of range, or no room for the KV cache.

    Notes
    -----
    Times are of the whole step of the replica. Averages are all this simulator has: a batch is one of like requests.
    """

    def __init__(
        self,
        evaluator: StepEvaluator,
        cost_per_hr: float = 0.0,
        chunk: int = 512,
        block_size: int = 16,
        max_num_seqs: int = 256,
        memory_utilization: float = 0.9,
        power_idle_w: float = 0.0,
        power_nominal_w: float = 0.0,
    ) -> None:
        problems = Problems()
        self.embedded = Embedded(evaluator)
        self.name = f"{evaluator.model.name} on {evaluator.hardware.name}"
        self.cost_per_hr = problems.number("cost_per_hr", cost_per_hr, 0.0)
        self.chunk = problems.positive_int("chunk", chunk)
        self.blk_size = problems.positive_int("block_size", block_size)
        self.max_slots = problems.positive_int("max_num_seqs", max_num_seqs)
        self.power_idle_w = problems.number("power_idle_w", power_idle_w, 0.0)
        self.power_nominal_w = problems.number("power_nominal_w", power_nominal_w, 0.0)
        problems.raise_if_any()
        self.total_kv_blks = self.embedded.num_kv_blocks(self.blk_size, memory_utilization)
        if self.total_kv_blks < 1:
            problems.add("evaluator", repr(evaluator), "a model that leaves room for its KV cache", "Use more ranks.")
        problems.raise_if_any()
        # The engine asks for the same averages over and over: full batches, common lengths.
        self._decode = lru_cache(65_536)(self._decode_s)
        self._prefill = lru_cache(65_536)(self._prefill_s)

    def __reduce__(self) -> tuple[Any, ...]:
        state = dict(self.__dict__)
        del state["_decode"], state["_prefill"]
        return _restored, (type(self), state)

    def iter_latency(self, n_active: int, mean_seq_len: float | None = None) -> float:
        """Return the time of one decode iteration of ``n_active`` requests of ``mean_seq_len`` tokens. [s]"""
        return self._decode(int(n_active), self._length(n_active, mean_seq_len))

    def prefill_iter_latency(
        self, chunk_tokens: int, kv_history_tokens: float, n_active: int, mean_seq_len: float | None = None
    ) -> float:
        """Return the time of one iteration with a chunk behind ``kv_history_tokens`` and the others decoding. [s]"""
        length = self._length(n_active, mean_seq_len)
        return self._prefill(int(chunk_tokens), int(kv_history_tokens), max(int(n_active) - 1, 0), length)

    def n_slots(self, max_ctx: int) -> int:
        """Return how many requests of ``max_ctx`` tokens fit at once; at least 1, for its queues to drain."""
        return max(min(self.max_slots, self.total_kv_blks // max(math.ceil(max_ctx / self.blk_size), 1)), 1)

    def service_time(self, l_in: int, l_out: int, max_ctx: int) -> float:
        """Return the time of one request in a full batch of like ones. [s]"""
        n, length = self.n_slots(max_ctx), float(l_in + l_out)
        chunks = math.ceil(l_in / self.chunk)
        prefill = chunks * self.prefill_iter_latency(self.chunk, l_in / 2.0, n, length)
        return prefill + l_out * self.iter_latency(n, length)

    def throughput(self, max_ctx: int, mean_l_in: float, mean_l_out: float) -> float:
        """Return requests per second with all slots in use."""
        return self.n_slots(max_ctx) / self.service_time(int(mean_l_in), int(mean_l_out), max_ctx)

    def power_at_concurrency(self, n_active: int) -> float:
        """Return the power between idle and nominal, in proportion to the requests. [W]"""
        share = min(max(n_active / self.max_slots, 0.0), 1.0)
        return self.power_idle_w + (self.power_nominal_w - self.power_idle_w) * share

    def _length(self, n_active: int, mean_seq_len: float | None) -> int:
        """Return the mean length; where it is not said, that of a cache filled by the requests."""
        if mean_seq_len is None:
            return max(self.total_kv_blks * self.blk_size // max(int(n_active), 1), 1)
        return max(int(mean_seq_len), 1)

    def _decode_s(self, n: int, length: int) -> float:
        return self.embedded.aggregate(n, n * length) if n > 0 else self.embedded.min_step_s

    def _prefill_s(self, chunk: int, history: int, n: int, length: int) -> float:
        area = chunk * (history + 0.5 * chunk)
        return self.embedded.aggregate(n, n * length, 0, chunk, area, 1)


def _restored(cls: type[MfuroofGpuProfile], state: dict[str, Any]) -> MfuroofGpuProfile:
    profile = cls.__new__(cls)
    profile.__dict__.update(state)
    profile._decode = lru_cache(65_536)(profile._decode_s)
    profile._prefill = lru_cache(65_536)(profile._prefill_s)
    return profile
