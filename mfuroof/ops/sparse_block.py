"""Sparse latent attention from measured whole blocks, without their projections, split into its two parts.

The tables time whole blocks, as those of dense latent attention do, and their projections are taken out in the same
way. Attention over at most ``topk`` tokens and the selector's scores over everything are told apart by how they grow.
In decode the split is T(B, min(kv, topk)) and the rest. In prefill a token behind ``P >= topk`` cached ones takes
w + 2 c P: rows with a cached prefix give w and c where a table has them, else the two longest prompts do, whose time
per token is w (1 - topk / 2F) + c F. Read that way, SGLang's rows of up to four prompts behind 2 k to 128 k tokens come
out within 30 % on H200 and B200, most within 15 %.

Prefill blocks of vLLM and SGLang were timed without a CUDA graph and take 0.8 to 1.6 ms of launches whatever the
length, which no engine adds up layer by layer: they overlap the rest of the step. Decode blocks were captured. A prompt
of F tokens asks as many queries, over half its length on average, as a decode batch of F requests of length F/2, so it
is never dearer than that batch; where the decode table says less than the prefill table, it counts. For the same reason
a batch is never dearer than its halves one after the other (decode batches beyond the largest captured graph).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mfuroof._types import F64
from mfuroof.core.sources import Source
from mfuroof.models import AttentionSpec, IndexerSpec, LayerSpec, get_model
from mfuroof.ops.lattice import BATCH_OCTAVES, LENGTH_OCTAVES
from mfuroof.ops.layer import Builder
from mfuroof.ops.mla import GEMM_DTYPES, KV_DTYPES, decode_lattice, mla_gemms, prefill_lattice, without_gemms
from mfuroof.ops.select import rows
from mfuroof.ops.selector import selector_gemms
from mfuroof.ops.sources import MeasuredOps
from mfuroof.ops.transfer import Lattice, between_heads, cut_to_window
from mfuroof.parallel import Parallel
from mfuroof.tables.store import KernelTables, available, load_tables

__all__ = ["SparseCore", "sparse_core"]

MEASURED = {"DeepseekV32ForCausalLM": "deepseek-ai/DeepSeek-V3.2", "GlmMoeDsaForCausalLM": "zai-org/GLM-5"}
"""Measured blocks, and the registered model that has each of them."""
PACKED = {"fp8_ds_mla": "fp8"}
"""Cache formats under the name that the tables give them."""
HOST_BOUND = 1.5
"""Up to so many times the shortest time of a table's rows behind a prefix, launches bind and not the GPU."""


@dataclass(frozen=True, eq=False)
class SparseCore:
    """Measured sparse attention without projections, for one number of heads.

    Attributes
    ----------
    selector
        Selector of the measured block.
    kv_dtype
        What the cache held.
    decode
        Attention and scores together.
    attend, scores
        The two parts of prefill; all launches count to the first.
    """

    selector: IndexerSpec
    kv_dtype: str
    decode: Lattice
    attend: Lattice
    scores: Lattice

    @property
    def topk(self) -> int:
        """Tokens that attention reads at most. [tokens]"""
        return self.selector.topk_tokens

    def decode_up_to(self, tokens: int) -> Lattice:
        """Return decode as if no more than ``tokens`` were cached."""
        return replace(cut_to_window(self.decode, tokens, decode=True), source=self.decode.source)

    def substituted(self) -> SparseCore:
        """Return the core marked as standing in for another."""
        parts = (replace(x, source=_substituted(x.source)) for x in (self.decode, self.attend, self.scores))
        return SparseCore(self.selector, self.kv_dtype, *parts)

def sparse_core(build: Builder, layer: LayerSpec) -> SparseCore | None:
    """Return measured sparse attention with this rank's heads, from the engine's tables or another engine's.

    Blocks with the same latent widths and as many selector heads come first; others stand in for them, unless
    ``params.transfer`` forbids it.
    """
    tables, transfer = build.measured.tables, build.measured.params.transfer
    others = [e for e in available().get(tables.gpu, {}) if e != tables.engine] if transfer else []
    for engine in (tables.engine, *others):
        source = tables if engine == tables.engine else load_tables(tables.gpu, engine)
        if source.has("dsa_module_decode") and source.has("dsa_module_prefill"):
            for exact in (True, False) if transfer else (True,):
                core = _core_of_engine(build, layer, source, exact)
                if core is not None:
                    return core if source is tables else core.substituted()
    return None


def _core_of_engine(build: Builder, layer: LayerSpec, source: KernelTables, exact: bool) -> SparseCore | None:
    a, kv = layer.attention, build.model.kv_dtype
    heads = a.num_attention_heads // build.parallel.tp_size
    near = sorted(MEASURED, key=lambda architecture: _remoteness(architecture, a))
    if not build.measured.params.transfer:
        near = [architecture for architecture in near if _remoteness(architecture, a) == 0.0]
    for architecture in near:
        for gemm_dtype in dict.fromkeys((build.model.module_dtype("mla", layer), *GEMM_DTYPES)):
            for kv_dtype in dict.fromkeys((PACKED.get(kv, kv), *KV_DTYPES)):
                block = _Block(build, source, architecture, gemm_dtype, kv_dtype)
                known = block.known_heads()
                if not known.size or (exact and heads not in known):
                    continue
                core = block.between(known, heads)
                return core if _remoteness(architecture, a) == 0.0 else core.substituted()
    return None


def _remoteness(architecture: str, a: AttentionSpec) -> float:
    """Say how unlike a measured block is: 0 for the same latent widths, selector heads and choice."""
    other = get_model(MEASURED[architecture]).layers[-1].attention
    mine, theirs = a.indexer, other.indexer
    assert theirs is not None
    far = float(a.mla != other.mla)
    if mine is not None and mine.num_heads:
        far += abs(np.log2(mine.num_heads / theirs.num_heads))
    return far if mine is None else far + abs(np.log2(mine.topk_tokens / theirs.topk_tokens))


@dataclass(frozen=True, eq=False)
class _Block:
    """The measured rows of one sparse block: architecture and dtypes chosen, all heads."""

    build: Builder
    tables: KernelTables
    architecture: str
    gemm_dtype: str
    kv_dtype: str

    @property
    def where(self) -> dict[str, str]:
        return {
            "architecture": self.architecture,
            "gemm_dtype": self.gemm_dtype,
            "attn_dtype": "bf16",
            "kv_dtype": self.kv_dtype,
        }

    @property
    def layer(self) -> LayerSpec:
        return get_model(MEASURED[self.architecture]).layers[-1]

    @property
    def selector(self) -> IndexerSpec:
        selector = self.layer.attention.indexer
        assert selector is not None
        return selector

    def known_heads(self) -> np.ndarray:
        """Return the numbers of heads, ascending, that were measured in both phases."""
        decode = rows(self.tables, "dsa_module_decode", **self.where)
        prefill = rows(self.tables, "dsa_module_prefill", **self.where, context_len=0)
        if not decode["latency_s"].size or not prefill["latency_s"].size:
            return np.empty(0, np.int64)
        return np.intersect1d(decode["num_attention_heads"], prefill["num_attention_heads"])

    def between(self, known: np.ndarray, heads: int) -> SparseCore:
        """Return the sparse attention of any number of heads, from the measured numbers around it."""
        read = lru_cache(self.core)
        return SparseCore(
            self.selector,
            self.kv_dtype,
            between_heads(known, heads, lambda n: read(n).decode),
            between_heads(known, heads, lambda n: read(n).attend),
            between_heads(known, heads, lambda n: read(n).scores),
        )

    def core(self, heads: int) -> SparseCore:
        """Return the sparse attention of that many heads without the block's projections."""
        measured = self.build.measured
        p, reference = measured.params, measured.reference
        home = replace(
            self.build,
            model=get_model(MEASURED[self.architecture]),
            parallel=Parallel(),
            measured=MeasuredOps(self.tables, reference, p, reference),
        )
        layer = self.layer
        mla = layer.attention.mla
        assert mla is not None and mla.q_lora_rank is not None
        gemms = (
            *mla_gemms(home, layer, self.gemm_dtype, heads),
            *selector_gemms(home, layer, mla.q_lora_rank, self.gemm_dtype),
        )
        d = rows(self.tables, "dsa_module_decode", **self.where, num_attention_heads=heads)
        f = rows(self.tables, "dsa_module_prefill", **self.where, num_attention_heads=heads, context_len=0)
        g = rows(self.tables, "dsa_module_prefill", **self.where, num_attention_heads=heads, batch_size=1)
        g = {name: column[g["context_len"] >= self.selector.topk_tokens] for name, column in g.items()}
        batch, cached, whole_s = d["batch_size"], d["kv_len"] - 1, d["latency_s"]  # 2^i tokens and the new one
        prompts, new, prompts_s = f["batch_size"], f["new_tokens"], f["latency_s"]
        if p.monotone:
            whole_s = _no_dearer_than_halves(batch, cached, whole_s)
            prompts_s = _no_dearer_than_decode(prompts, new, prompts_s, decode_lattice((batch, cached, whole_s), p))
        decode_s = without_gemms(whole_s, batch, gemms, layer.count)
        prefill_s = without_gemms(prompts_s, prompts * new, gemms, layer.count)
        decode, prefill = decode_lattice((batch, cached, decode_s), p), prefill_lattice((prompts, new, prefill_s), p)
        chunk_s = without_gemms(g["latency_s"], g["new_tokens"], gemms, layer.count)
        rates = _rates_of_chunks(g["new_tokens"].astype(float), g["context_len"].astype(float), chunk_s, g["latency_s"])
        topk = self.selector.topk_tokens
        attend, scores = _split(prefill, topk, *(rates or _rates_of_prompts(prefill, topk)))
        return SparseCore(self.selector, self.kv_dtype, decode, attend, scores)


def _no_dearer_than_halves(batch: np.ndarray, length: np.ndarray, time_s: F64) -> F64:
    """Return times with T(2B) brought down to 2 T(B) where both were measured, smaller batches first."""
    out = time_s.copy()
    seen: dict[tuple[int, int], float] = {}
    for at in np.argsort(batch, kind="stable"):
        half = seen.get((int(batch[at]) // 2, int(length[at])), np.inf) if batch[at] % 2 == 0 else np.inf
        out[at] = seen[int(batch[at]), int(length[at])] = min(out[at], 2.0 * half)
    return out


def _no_dearer_than_decode(batch: np.ndarray, new: np.ndarray, time_s: F64, decode: Lattice) -> F64:
    """Return prompt times no longer than a decode batch of as many queries over half the prompt takes."""
    row, column = np.log2(batch * new), np.log2(np.maximum(new / 2.0, 1.0))
    on = (row == np.floor(row)) & (column == np.floor(column)) & (row < BATCH_OCTAVES) & (column < LENGTH_OCTAVES)
    out = time_s.copy()
    out[on] = np.minimum(time_s[on], decode.time_s[row[on].astype(int), column[on].astype(int)])
    return out


def _rates_of_chunks(
    new: F64, context: F64, time_s: F64, whole_s: F64
) -> tuple[float, float] | None:
    """Return w and c of T = w n + c ((P + n)^2 - P^2), from single chunks behind P >= topk tokens that fill the GPU."""
    busy = whole_s > HOST_BOUND * whole_s.min() if whole_s.size else np.zeros(0, bool)
    if np.unique(context[busy]).size < 2:
        return None
    terms = np.stack([new[busy], new[busy] * (2.0 * context[busy] + new[busy])], axis=1) / time_s[busy, None]
    each, square = np.linalg.lstsq(terms, np.ones(int(busy.sum())), rcond=None)[0]
    return (float(each), float(square)) if each > 0.0 and square > 0.0 else None


def _rates_of_prompts(prefill: Lattice, topk: int) -> tuple[float, float]:
    """Return w and c of T = w (F - topk / 2) + c F^2, from the two longest prompts of at least twice the choice."""
    lengths = 2.0 ** np.arange(LENGTH_OCTAVES)
    rate = (prefill.time_s[0] - prefill.launch_s[0]) / lengths
    long = np.flatnonzero((prefill.source[0] == Source.EXACT) & (lengths >= 2.0 * topk))[-2:]
    if long.size < 2:
        return 0.0, 0.0
    (one, two), (rate_one, rate_two) = lengths[long], rate[long]
    seen_one, seen_two = 1.0 - topk / (2.0 * one), 1.0 - topk / (2.0 * two)
    square = (rate_two * seen_one - rate_one * seen_two) / (two * seen_one - one * seen_two)
    square = float(np.clip(square, 0.0, rate_two / two))
    return float((rate_two - square * two) / seen_two), square


def _split(prefill: Lattice, topk: int, each: float, square: float) -> tuple[Lattice, Lattice]:
    """Return attention over the choice, and the scores, whose time is c b F^2 (no launch of their own).

    A chunk behind a prefix takes w a token, so a prompt of ``topk`` tokens is held to w topk / 2: SGLang attends to all
    of so short a prompt by a dense kernel, which no chunk can use.
    """
    lengths, batch = 2.0 ** np.arange(LENGTH_OCTAVES), 2.0 ** np.arange(prefill.time_s.shape[0])[:, None]
    launch = prefill.launch_s[:, None]
    scores = np.minimum(square * batch * lengths**2, prefill.time_s - launch)
    attend = prefill.time_s - scores
    full = lengths == topk
    attend[:, full] = np.maximum(attend[:, full], launch + each * batch * topk / 2.0)
    longest = int(np.flatnonzero(prefill.source[0] == Source.EXACT)[-1])
    if square > 0.0 and lengths[longest] >= topk:  # beyond it the scores alone grow with the square
        after = slice(longest + 1, None)
        pairs = (lengths[after] - topk / 2.0) / (lengths[longest] - topk / 2.0)
        attend[:, after] = launch + (attend[:, longest, None] - launch) * pairs
        scores[:, after] = square * batch * lengths[after] ** 2
    none = np.zeros_like(prefill.launch_s)
    return replace(prefill, time_s=attend), Lattice(scores, prefill.source, none)


def _substituted(codes: np.ndarray) -> np.ndarray:
    return np.maximum(codes, np.uint8(Source.SUBSTITUTED))
