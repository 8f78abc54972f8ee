"""A folder of benchmark files in memory: what is there, which peaks it is judged by, and its MFU at any shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mfuroof._types import ArrayLike
from mfuroof.errors import InputError, MfuroofWarning, Problem, UnknownNameError
from mfuroof.tables import bench_query as query
from mfuroof.tables.bench_file import BenchFile
from mfuroof.tables.peaks import PeakInterval, figures_of, implied_peak

__all__ = ["BenchData"]

T = TypeVar("T")

VAGUE = 0.01
"""Relative width of an implied peak from which its use is warned about."""


@dataclass(frozen=True, eq=False, repr=False)
class BenchData:
    """Every measured row of a folder in the InferSim / BLIS layout.

    Rules, for every ``*_mfu`` method:

    ``"floor"``, ``"ceiling"``, ``"nearest_l1"``, ``"nearest_l2"``, ``"loglog"`` read the MFU that is recomputed from
    latency; ``"linear"`` blends latency and returns the MFU it implies. Of GEMMs they read the measured weight shape
    nearest to (k, n) that covers it.
    ``"blis_floor"``, ``"blis_v2"`` and ``"infersim"`` are those programs' own rules on the MFU column as written, with
    their tie-breaking, rounding, treatment of zeros and defaults (`mfuroof.tables.peer_blis`, `peer_infersim`).

    Attributes
    ----------
    folder
        Where it was loaded from.
    files
        Files in path order, their rows in file order.
    unread
        CSV files in the folder that belong to no known family.
    peaks
        Figures by GPU name; None takes what the files imply.
    """

    folder: str
    files: tuple[BenchFile, ...]
    unread: tuple[str, ...] = ()
    peaks: Mapping[str, Mapping[str, float]] | None = None
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)

    @property
    def gpus(self) -> tuple[str, ...]:
        """GPU folders found, sorted."""
        return tuple(sorted({file.gpu for file in self.files}))

    def select(self, gpu: str, family: str, phase: str = "") -> tuple[BenchFile, ...]:
        """Return the files of one GPU, family and phase, by file name; empty if there is none.

        Raises
        ------
        UnknownNameError
            Neither files nor peaks of that GPU.
        """
        folded = gpu.casefold() if isinstance(gpu, str) else gpu
        if folded not in {name.casefold() for name in (*self.gpus, *(self.peaks or ()))}:
            raise UnknownNameError("GPU", gpu, self.gpus, remedy=f"in {self.folder}")
        found = [f for f in self.files if f.gpu.casefold() == folded and f.layout.family == family]
        return tuple(sorted((f for f in found if f.layout.phase == phase), key=lambda f: f.stem + ".csv"))

    def once(self, key: tuple[Any, ...], build: Callable[[], T]) -> T:
        """Return what ``build`` made of the files the first time it was asked for under ``key``."""
        if key not in self.cache:
            self.cache[key] = build()
        found: T = self.cache[key]
        return found

    def peak(self, gpu: str, dtype: str) -> float:
        """Return the matmul rate of ``dtype`` that recomputed MFUs are relative to. [FLOP/s]

        That of ``peaks`` where it has the GPU, else the one that the files of this GPU imply.

        Raises
        ------
        InputError
            Neither says; the remedy is to pass ``peaks`` when loading.

        Warns
        -----
        MfuroofWarning
            The files imply it to no better than 1 %.
        """
        figures = figures_of(gpu, self.peaks) if self.peaks is not None else None
        if figures is not None and dtype in figures[1]:
            return float(figures[1][dtype])
        implied = self.once(("implied", gpu.casefold(), dtype), lambda: self._implied(gpu, dtype))
        if implied is None:
            expected = f"a {dtype} rate of {gpu}, as peaks= of load_bench_data"
            raise InputError(Problem("peaks", "none, and no file implies one", expected))
        return float(implied.middle)

    def _implied(self, gpu: str, dtype: str) -> PeakInterval | None:
        """Return the narrowest interval that nine tenths of the rows of a file agree on."""
        own = [f for f in self.files if f.gpu.casefold() == gpu.casefold() and f.layout.peak_dtype == dtype]
        columns = [f for f in own if "mfu" in f.columns]
        found = [interval for interval in (implied_peak(f, "mfu") for f in columns) if interval is not None]
        usable = [i for i in found if i.agreeing >= 0.9 * i.rows]
        best = min(usable, key=lambda i: (i.high - i.low) / i.middle, default=None)
        if best is not None and best.high - best.low > VAGUE * best.middle:
            text = f"the files imply a {dtype} peak of {gpu} between {best.low:.4g} and {best.high:.4g} FLOP/s; "
            warnings.warn(text + "the middle is used, peaks= of load_bench_data sets it", MfuroofWarning, stacklevel=6)
        return best

    def bandwidth(self, gpu: str) -> float:
        """Return the memory bandwidth of ``peaks`` for a GPU. [bytes/s]

        Raises
        ------
        InputError
            It is not there.
        """
        figures = figures_of(gpu, self.peaks) if self.peaks is not None else None
        if figures is None or "hbm_bytes_per_s" not in figures[1]:
            expected = f'hbm_bytes_per_s of {gpu}, as peaks= of load_bench_data, for outside="hold"'
            raise InputError(Problem("peaks", "none", expected))
        return float(figures[1]["hbm_bytes_per_s"])

    def attn_prefill_mfu(
        self,
        gpu: str,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        seq_len: ArrayLike,
        rule: str = "loglog",
        *,
        tp: ArrayLike = 1,
        **options: Any,
    ) -> Any:
        """Return the MFU of causal prefill attention, relative to half of the square of the sequence.

        Parameters
        ----------
        gpu
            Name of a GPU folder, in any case.
        heads, kv_heads, head_dim
            Of the model. [heads, heads, features]
        seq_len
            Prompt length. [tokens]
        rule
            See the class.
        tp
            Tensor parallel degree: a rank has ``heads / tp`` heads. The BLIS rules do not look at it.
        **options
            ``outside`` ("clamp": the MFU at the edge; "hold": the utilisation of the roofline, which needs
            ``hbm_bytes_per_s`` among the peaks; "nan"; "raise"; None: the rule's own reach), ``missing`` ("raise",
            "nearest": the nearest measured configuration, "nan"), ``peak_dtype`` (default: the family's),
            ``default_mfu`` (what InferSim assumes for a GPU it does not know), ``details``.

        Returns
        -------
        ndarray of float64, or `mfuroof.lookup.Details`
            MFU of the broadcast shape of the arguments. [-]

        Raises
        ------
        UnknownNameError, MissingTableError, InputError
            No such GPU, rule or policy; no table of this configuration; a count that is not one.
        """
        shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "tp": tp, "seq_len": seq_len}
        return query.attention(self, "mha", "prefill", gpu, shape, rule, {}, options)

    def attn_decode_mfu(
        self,
        gpu: str,
        heads: ArrayLike,
        kv_heads: ArrayLike,
        head_dim: ArrayLike,
        batch: ArrayLike,
        kv_len: ArrayLike,
        tp: ArrayLike = 1,
        kv_dtype: str = "bf16",
        rule: str = "linear",
        **options: Any,
    ) -> Any:
        """Return the MFU of decode attention: one new token for each of ``batch`` sequences.

        Parameters
        ----------
        gpu, heads, kv_heads, head_dim, tp, rule, **options
            As `attn_prefill_mfu`.
        batch, kv_len
            Sequences, and cached tokens of each. [sequences, tokens]
        kv_dtype
            Of the cache. The BLIS rules do not look at it.
        """
        shape = {"heads": heads, "kv_heads": kv_heads, "head_dim": head_dim, "tp": tp, "batch": batch, "kv_len": kv_len}
        return query.attention(self, "mha", "decode", gpu, shape, rule, {"kv_dtype": kv_dtype}, options)

    def mla_prefill_mfu(
        self,
        gpu: str,
        heads: ArrayLike,
        qk_nope_head_dim: ArrayLike,
        qk_rope_head_dim: ArrayLike,
        seq_len: ArrayLike,
        rule: str = "loglog",
        *,
        tp: ArrayLike = 1,
        **options: Any,
    ) -> Any:
        """Return the MFU of causal latent attention in prefill, not absorbed; otherwise as `attn_prefill_mfu`."""
        shape = {"heads": heads, "nope": qk_nope_head_dim, "rope": qk_rope_head_dim, "tp": tp, "seq_len": seq_len}
        return query.attention(self, "mla", "prefill", gpu, shape, rule, {}, options)

    def mla_decode_mfu(
        self,
        gpu: str,
        heads: ArrayLike,
        kv_lora_rank: ArrayLike,
        qk_rope_head_dim: ArrayLike,
        batch: ArrayLike,
        kv_len: ArrayLike,
        tp: ArrayLike = 1,
        kv_dtype: str = "bf16",
        rule: str = "linear",
        **options: Any,
    ) -> Any:
        """Return the MFU of absorbed latent attention in decode; otherwise as `attn_decode_mfu`."""
        key = {"heads": heads, "rank": kv_lora_rank, "rope": qk_rope_head_dim}
        shape = {**key, "tp": tp, "batch": batch, "kv_len": kv_len}
        return query.attention(self, "mla", "decode", gpu, shape, rule, {"kv_dtype": kv_dtype}, options)

    def gemm_mfu(self, gpu: str, m: ArrayLike, k: ArrayLike, n: ArrayLike, rule: str = "linear", **options: Any) -> Any:
        """Return the MFU of Y[m, n] = X[m, k] W[k, n], relative to the FP8 peak by default.

        Parameters
        ----------
        gpu, rule, **options
            As `attn_prefill_mfu`. A weight that no measured one covers is outside: "clamp" takes the largest.
        m, k, n
            Tokens, in features, out features.
        """
        return query.gemm(self, gpu, {"m": m, "k": k, "n": n}, rule, options)

    def grouped_gemm_mfu(
        self,
        gpu: str,
        phase: str,
        num_experts: int,
        num_experts_per_tok: int,
        hidden_size: int,
        intermediate_size: int,
        tokens: ArrayLike,
        num_gpus: int = 1,
        tp: int = 1,
        rule: str = "linear",
        **options: Any,
    ) -> Any:
        """Return the MFU of one rank's routed experts, for the (gate and) up projection and for the down projection.

        Parameters
        ----------
        gpu, rule, **options
            As `attn_prefill_mfu`; there is no BLIS rule. ``outside="hold"`` is not available: which experts' weights
            are read is random.
        phase
            ``"prefill"`` (contiguous) or ``"decode"`` (masked).
        num_experts, num_experts_per_tok, hidden_size, intermediate_size
            Of the model; the key of the table, exact.
        tokens
            Tokens per GPU.
        num_gpus, tp
            A rank has ``num_experts / (num_gpus / tp)`` experts, each ``intermediate_size / tp`` wide.

        Returns
        -------
        ndarray of float64, shape (2, ...), or `mfuroof.lookup.Details`
            Row 0 is up, row 1 is down. [-]
        """
        key = {
            "num_experts": num_experts,
            "num_gpus": num_gpus,
            "tp": tp,
            "num_experts_per_tok": num_experts_per_tok,
            "hidden_size": hidden_size,
            "intermediate_size": intermediate_size,
        }
        return query.grouped(self, gpu, phase, key, tokens, rule, options)

    def gdn_latency_s(
        self, gpu: str, phase: str, key: tuple[int, ...], tokens: ArrayLike, rule: str = "linear", **options: Any
    ) -> Any:
        """Return the time of all kernels of one gated-delta-net layer. [s]

        Parameters
        ----------
        gpu, rule, **options
            As `attn_prefill_mfu`; rules are the generic ones, on time, and ``"infersim"``: the nearest row, scaled in
            proportion. Outside the rows time is scaled in proportion by default (``outside="hold"``).
        phase
            ``"prefill"`` (tokens of one prompt) or ``"decode"`` (sequences).
        key
            (convolution kernel, key heads, key head dim, value heads, value head dim).
        tokens
            Prompt length, or batch size. [tokens or sequences]
        """
        return query.gated_delta_net(self, gpu, phase, key, tokens, rule, options)

    def __repr__(self) -> str:
        lines = [f"BenchData({self.folder!r}): {len(self.files)} files, {sum(map(len, self.files))} rows"]
        for gpu in self.gpus:
            families: dict[str, list[int]] = {}
            for file in self.files:
                if file.gpu == gpu:
                    name = f"{file.layout.family} {file.layout.phase}".strip()
                    families.setdefault(name, []).append(len(file))
            parts = [f"{name} ({len(rows)} files, {sum(rows)} rows)" for name, rows in families.items()]
            lines.append(f"  {gpu}: {'; '.join(parts)}")
        return "\n".join(lines)
