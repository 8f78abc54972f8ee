"""Attention grids for shapes that no table holds, from the measured shapes that are closest in physics.

Decode kernels spread (request, KV head) pairs over the GPU, prefill kernels (request, query head) pairs. So

* another number of query heads at the same KV heads is interpolated linearly between the measured ones;
* another number of KV heads is read as more requests of fewer heads: T(B; h, k) = T(B k/k0; h k0/k, k0);
* another head width, and another KV dtype in decode, scales the part above the launch by the bytes;
* a sliding window that was not measured cuts the unwindowed grid: reads stop at the window, areas shrink.

Leaving measured shapes out (H100, vLLM, head width 128) errs by, median and mean: query heads 1.1 and 2.3 % in decode,
3.0 and 5.8 % in prefill; all shapes with some number of KV heads 2.7 and 5.4 %, 2.5 and 5.5 %. Everything that went
through here is marked SUBSTITUTED.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.ops.lattice import LENGTH_OCTAVES
from mfuroof.ops.select import rows
from mfuroof.precision import kv_format_of
from mfuroof.tables.store import KernelTables

__all__ = ["AttentionKey", "Lattice", "between_heads", "cut_to_window", "find_lattice"]


@dataclass(frozen=True)
class AttentionKey:
    """Key columns of an attention table, in its order."""

    attn_dtype: str
    kv_dtype: str
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int


@dataclass(frozen=True, eq=False)
class Lattice:
    """Seconds at batch 2^i and length 2^j, where each comes from, and the launch part (rows,)."""

    time_s: F64
    source: np.ndarray
    launch_s: F64

    def scaled_area(self, factor: F64 | float) -> Lattice:
        """Return the lattice with everything above the launch multiplied."""
        launch = self.launch_s[:, None]
        return self._substituted(launch + (self.time_s - launch) * factor)

    def carried(self, ratio: F64) -> Lattice:
        """Return the lattice of another GPU, utilisation held: times the ratio of the rooflines."""
        return self._substituted(self.time_s * ratio, self.launch_s * ratio[:, 0])

    def at_batches(self, scale: float) -> Lattice:
        """Return the lattice of batches ``scale`` times as large, read linearly between rows and on beyond them."""
        n = self.time_s.shape[0]
        at = scale * 2.0 ** np.arange(n)
        row = np.clip(np.floor(np.log2(at)).astype(int), 0, n - 2)
        weight = (at / 2.0**row - 1.0)[:, None]
        time = self.time_s[row] * (1.0 - weight) + self.time_s[row + 1] * weight
        return self._substituted(np.maximum(time, 0.0), self.launch_s)

    def mixed(self, other: Lattice, share: float) -> Lattice:
        """Return the linear mix with ``share`` of ``other``."""
        launch = self.launch_s * (1.0 - share) + other.launch_s * share
        return self._substituted(self.time_s * (1.0 - share) + other.time_s * share, launch)

    def _substituted(self, time: F64, launch: F64 | None = None) -> Lattice:
        codes = np.maximum(self.source, np.uint8(Source.SUBSTITUTED))
        return Lattice(time, codes, self.launch_s if launch is None else np.minimum(launch, time[:, 0]))


Reader = Callable[[dict[str, np.ndarray]], Lattice]


def find_lattice(
    tables: KernelTables, family: str, key: AttentionKey, read: Reader, *, transfer: bool = True
) -> Lattice | None:
    """Return the lattice of ``key``: as measured, or transferred; None where no measured shape is related.

    Parameters
    ----------
    tables, family
        Where to look: ``"attn_decode"`` or ``"attn_prefill"``.
    key
        The shape that is wanted.
    read
        Makes a lattice of the rows of one shape.
    transfer
        Whether another shape may stand in.
    """
    measured = rows(tables, family, **vars(key))
    if measured["latency_s"].size:
        return read(measured)
    return _transferred(tables, family, key, read) if transfer and tables.has(family) else None


def _transferred(tables: KernelTables, family: str, key: AttentionKey, read: Reader) -> Lattice | None:
    if not rows(tables, family, attn_dtype=key.attn_dtype)["latency_s"].size:
        if key.attn_dtype == "bf16":
            return None
        grid = find_lattice(tables, family, replace(key, attn_dtype="bf16"), read)  # no faster than was measured
        return grid.scaled_area(1.0) if grid else None
    decode = family == "attn_decode"
    if not rows(tables, family, attn_dtype=key.attn_dtype, kv_dtype=key.kv_dtype)["latency_s"].size:
        other = _other_kv_dtype(tables, family, key)
        grid = find_lattice(tables, family, other, read) if other else None
        if grid is None or other is None:
            return None
        ratio = kv_format_of(key.kv_dtype).bytes_per_element / kv_format_of(other.kv_dtype).bytes_per_element
        return grid.scaled_area(ratio if decode else 1.0)
    at_kv = rows(tables, family, attn_dtype=key.attn_dtype, kv_dtype=key.kv_dtype)
    at_window = at_kv["head_dim"][at_kv["sliding_window"] == key.sliding_window]
    if key.head_dim not in at_kv["head_dim"]:
        widths = np.unique(at_window if at_window.size else at_kv["head_dim"])
        width = int(widths[np.argmin(np.abs(np.log2(widths / key.head_dim)))])
        grid = find_lattice(tables, family, replace(key, head_dim=width), read)
        return grid.scaled_area(key.head_dim / width) if grid else None
    same = _but(key, "num_attention_heads", "num_key_value_heads", "sliding_window")
    if not rows(tables, family, **same, sliding_window=key.sliding_window)["latency_s"].size:
        if not key.sliding_window:
            return None
        grid = find_lattice(tables, family, replace(key, sliding_window=0), read)
        return cut_to_window(grid, key.sliding_window, decode=decode) if grid else None
    return _other_heads(tables, family, key, read)


def _but(key: AttentionKey, *left_out: str) -> dict[str, str | int]:
    """Return the columns of a key as filters, without some."""
    return {name: value for name, value in vars(key).items() if name not in left_out}


def _other_kv_dtype(tables: KernelTables, family: str, key: AttentionKey) -> AttentionKey | None:
    """Return the key with the measured KV dtype whose bytes are nearest."""
    wanted = kv_format_of(key.kv_dtype).bytes_per_element
    there = [
        d for d in ("bf16", "fp8")
        if d != key.kv_dtype and rows(tables, family, attn_dtype=key.attn_dtype, kv_dtype=d)["latency_s"].size
    ]  # fmt: skip
    there.sort(key=lambda d: abs(np.log2(kv_format_of(d).bytes_per_element / wanted)))
    return replace(key, kv_dtype=there[0]) if there else None


def _other_heads(tables: KernelTables, family: str, key: AttentionKey, read: Reader) -> Lattice | None:
    same = _but(key, "num_attention_heads", "num_key_value_heads")
    held = rows(tables, family, **same)
    pairs = np.unique(np.stack([held["num_attention_heads"], held["num_key_value_heads"]], axis=1), axis=0)
    if not pairs.size:
        return None

    def at_kv_heads(kv_heads: int, heads: float) -> Lattice | None:
        """Interpolate over query heads at measured KV heads; past the last, scale by the heads."""
        known = np.sort(pairs[pairs[:, 1] == kv_heads, 0])
        if not known.size:
            return None

        def grid(n: int) -> Lattice:
            return read(rows(tables, family, **same, num_attention_heads=n, num_key_value_heads=kv_heads))

        return between_heads(known, heads, grid)

    found = at_kv_heads(key.num_key_value_heads, key.num_attention_heads)
    if found is not None:
        return found
    measured_kv = np.unique(pairs[:, 1])
    below = measured_kv[measured_kv <= key.num_key_value_heads]
    kv_heads = int(below[-1] if below.size else measured_kv[0])
    split = key.num_key_value_heads / kv_heads
    found = at_kv_heads(kv_heads, key.num_attention_heads / split)
    return found.at_batches(split) if found else None


def between_heads(known: np.ndarray, heads: float, grid: Callable[[int], Lattice]) -> Lattice:
    """Return the lattice of ``heads`` query heads from those of the ``known`` numbers (ascending, not empty).

    Linear between neighbours; fewer than measured cost what the fewest do, more are scaled above the launch.
    """
    above = int(np.searchsorted(known, heads))
    if above < known.size and known[above] == heads:
        return grid(int(known[above]))
    if above == 0:
        return grid(int(known[0])).scaled_area(1.0)
    if above == known.size:
        return grid(int(known[-1])).scaled_area(heads / known[-1])
    low, high = int(known[above - 1]), int(known[above])
    return grid(low).mixed(grid(high), (heads - low) / (high - low))


def cut_to_window(grid: Lattice, window: int, *, decode: bool) -> Lattice:
    """Return an unwindowed lattice as a kernel with that window would run."""
    lengths = 2.0 ** np.arange(LENGTH_OCTAVES)
    if decode:
        column = np.minimum(np.log2(lengths), np.log2(window))
        low = np.floor(column).astype(int)
        high = np.minimum(low + 1, LENGTH_OCTAVES - 1)
        share = np.where(high > low, (np.minimum(lengths, window) / 2.0**low - 1.0), 0.0)
        return grid._substituted(grid.time_s[:, low] * (1.0 - share) + grid.time_s[:, high] * share)
    reach = np.minimum(lengths, window)
    return grid.scaled_area(reach * (lengths - 0.5 * reach) / (0.5 * lengths**2))
