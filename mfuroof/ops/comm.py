"""Collectives over tokens, from measured times over message sizes.

Between GPUs without a fast link messages take PCIe. The tables of such GPUs were measured where each may read the
other's memory (peer access): 0.6 of the link's rate, and an engine's own all-reduce works. Many hosts do not allow it
(virtual machines, IOMMUs, drivers of consumer cards): then engines fall back to NCCL, and each byte goes through the
host's memory, out of one GPU and into the next, at half of that. `CostParams.pcie_peer_access` says which host it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mfuroof._types import F64, freeze
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError
from mfuroof.hardware import Hardware
from mfuroof.ops.curves import MAX_TOKENS, Curve, affine_curve, fastest
from mfuroof.ops.select import holdings, rows
from mfuroof.params import CostParams
from mfuroof.tables.store import KernelTables, available, load_tables

__all__ = ["Collectives", "collective_curve"]

SEND_LATENCY_S = 10e-6
"""Fixed time of a point-to-point send between pipeline stages (AIConfigurator's figure). [s]"""
BACKENDS = (("custom", "bf16"), ("nccl", "fp16"))
"""Measured implementations and the 16-bit dtype each was measured with, as they stand in the tables."""
HOST_GPUS = 8
"""GPUs that one host holds at most: more of them talk over the network."""
THROUGH_HOST = 0.3
"""Share of the PCIe rate that bulk messages through host memory reach: peers reach 0.6 (38.8 of 64 GB/s between two RTX
PRO 6000, 19 of 32 between two L40S), and the host takes every byte twice. Prompts of 2048 tokens of a 32B model on two
RTX PRO 6000 of such a host agree: 19 GB/s."""


@dataclass(frozen=True, eq=False)
class Collectives:
    """Times of collectives between the ranks of one model.

    Attributes
    ----------
    tables, reference
        Measured tables, and the GPU they were measured on.
    hardware
        The GPU that is asked for; where its links differ, the part above the launch is scaled by them.
    params
        Rules.
    fused
        The engine fuses the all-reduce with the norm behind it, from the fastest kernels any engine has on this GPU.
    """

    tables: KernelTables
    reference: Hardware
    hardware: Hardware
    params: CostParams
    fused: bool = False

    def curve(self, op: str, num_gpus: int, elements_per_token: float) -> Curve:
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
        Engines pick the implementation by the size of the message: the fastest one measured counts. Another number
        of ranks than the measured ones takes the nearest measured one: its shortest time once more for each doubling
        of the ranks, and the rest scaled by the bytes each rank moves, (N - 1)/N, and by the links. Over PCIe without
        peer access NCCL alone counts, and what is above its shortest time is stretched so that large messages do not
        exceed the rate through the host's memory.
        """
        sources = [self.tables]
        through_host = self._through_host(num_gpus)
        backends = BACKENDS[1:] if through_host and self._has(op, BACKENDS[1]) else BACKENDS
        if self.fused and op == "all_reduce":
            engines = available().get(self.tables.gpu, {})
            sources += [load_tables(self.tables.gpu, e) for e in engines if e != self.tables.engine]
        curves = [
            curve if tables is self.tables else curve.substituted()
            for tables in sources
            for backend, dtype in backends
            if (curve := self._measured(tables, op, backend, dtype, num_gpus, elements_per_token)) is not None
        ]
        if curves:
            return curves[0] if self.params.collective == "first" else fastest(curves)
        if self.params.missing == "raise":
            raise MissingTableError(
                f"{op} over {num_gpus} GPUs on {self.tables.gpu} ({self.tables.engine})",
                holdings(self.tables, "comm", "op", "backend", "dtype", "num_gpus"),
                'missing="roofline" prices it by the link rate, "nan" leaves it open.',
            )
        share = THROUGH_HOST if through_host else 1.0
        rate = share * link_bytes_per_s(self.hardware, num_gpus)
        per_token = moved_bytes(op, elements_per_token, num_gpus) / rate
        known = self.params.missing == "roofline"
        knots = 2.0 ** np.arange(16)
        code, per_token = (Source.ROOFLINE, per_token) if known else (Source.MISSING, float("nan"))
        return Curve(freeze(knots), freeze(per_token * knots), per_token, freeze([code] * knots.size, np.uint8))

    def send_curve(self, elements_per_token: float) -> Curve:
        """Return the time to hand activations to the next pipeline stage: bytes over the link, and a launch."""
        outside = link_bytes_per_s(self.hardware, self.hardware.num_nvlink_gpus + 1)
        return affine_curve(SEND_LATENCY_S, 2.0 * elements_per_token / outside)

    def _through_host(self, num_gpus: int) -> bool:
        return not self.params.pcie_peer_access and over_pcie(self.hardware, num_gpus)

    def _has(self, op: str, backend: tuple[str, str]) -> bool:
        return bool(rows(self.tables, "comm", op=op, backend=backend[0], dtype=backend[1])["latency_s"].size)

    def _measured(
        self, tables: KernelTables, op: str, backend: str, dtype: str, num_gpus: int, elements_per_token: float
    ) -> Curve | None:
        found = rows(tables, "comm", op=op, backend=backend, dtype=dtype)
        if not found["latency_s"].size:
            return None
        sizes = np.unique(found["num_gpus"])
        nearest = int(sizes[np.argmin(np.abs(np.log2(sizes / num_gpus)))])
        mine = found["num_gpus"] == nearest
        elements, latency = found["elements"][mine].astype(float), found["latency_s"][mine]
        moved = (num_gpus - 1) / num_gpus * nearest / (nearest - 1)
        links = link_bytes_per_s(self.reference, nearest) / link_bytes_per_s(self.hardware, num_gpus)
        launch = latency.min()  # does not grow with the bytes, but by one round for each doubling of the ranks
        above = latency - launch
        if self._through_host(num_gpus):
            bulk = moved_bytes(op, elements[-1], num_gpus) / (THROUGH_HOST * link_bytes_per_s(self.hardware, num_gpus))
            largest = above[-1] * moved * links
            moved *= max(bulk / largest, 1.0) if largest > 0 else 1.0
        elif nearest == num_gpus and links == 1.0:
            return collective_curve(elements, latency, elements_per_token)
        rounds = np.log2(2.0 * num_gpus) / np.log2(2.0 * nearest)
        latency = launch * rounds + above * moved * links
        return collective_curve(elements, latency, elements_per_token, Source.SUBSTITUTED)


def over_pcie(hardware: Hardware, num_gpus: int) -> bool:
    """Whether that many GPUs are cards of one host, beyond a bridge between them if there is one."""
    cards = hardware.num_nvlink_gpus <= 2 or not hardware.nvlink_bytes_per_s
    bridged = hardware.nvlink_bytes_per_s > 0 and num_gpus <= hardware.num_nvlink_gpus
    return cards and not bridged and num_gpus <= HOST_GPUS and hardware.pcie_bytes_per_s > 0


def link_bytes_per_s(hardware: Hardware, num_gpus: int) -> float:
    """Return the slowest link among that many GPUs, one direction: the fast one inside its domain, PCIe, the network.

    A GPU for which no link is known has none that is slow.
    """
    if over_pcie(hardware, num_gpus):
        return hardware.pcie_bytes_per_s
    inside = hardware.nvlink_bytes_per_s or hardware.pcie_bytes_per_s
    outside = hardware.network_bytes_per_s or hardware.pcie_bytes_per_s
    return (inside if num_gpus <= hardware.num_nvlink_gpus or not outside else outside) or float("inf")


def moved_bytes(op: str, elements: float, num_gpus: int) -> float:
    """Return what each GPU sends of a message of 16-bit elements: a ring all-reduce scatters, then gathers. [bytes]"""
    trips = 2.0 if op == "all_reduce" else 1.0
    return trips * 2.0 * elements * (num_gpus - 1) / num_gpus


def collective_curve(elements: F64, latency_s: F64, elements_per_token: float, source: Source = Source.EXACT) -> Curve:
    """Return the time of a collective over tokens, linear in the message between measured sizes.

    Parameters
    ----------
    elements : shape (r,)
        Ascending message sizes. [elements]
    latency_s : shape (r,)
        Times measured at them. [s]
    elements_per_token
        Elements that each token adds to the message (the hidden size, for an all-reduce of activations).
    source
        Code of the measured sizes: SUBSTITUTED where another GPU or number of ranks stands in.

    Notes
    -----
    Below the smallest message its time holds; above the largest the time grows in proportion to the message.
    """
    tokens = elements / elements_per_token
    beyond = latency_s[-1] / tokens[-1]
    inside = tokens[(tokens > 1.0) & (tokens < MAX_TOKENS)]
    knots = np.concatenate([[1.0], inside, [float(MAX_TOKENS)]])
    time = np.interp(knots, tokens, latency_s) + beyond * np.maximum(knots - tokens[-1], 0.0)
    codes = np.full(knots.size, source, np.uint8)
    ends = np.isin(knots, tokens)
    codes[~ends] = np.maximum(codes[~ends], Source.INTERPOLATED)
    if tokens[-1] > MAX_TOKENS:  # the slope at the last knot is that of the message segment it lies in
        at = int(np.searchsorted(tokens, MAX_TOKENS, side="right"))
        beyond = (latency_s[at] - latency_s[at - 1]) / (tokens[at] - tokens[at - 1])
    return Curve(freeze(knots), freeze(time), float(max(beyond, 0.0)), freeze(codes, np.uint8))
