"""The benchmark layout that InferSim and BLIS share: which folders hold which family, and the columns of its files.

    gemm/<gpu>/data.csv                                       deep GEMM, FP8 operands
    mha/{prefill,decode}/<gpu>/<heads>-<kv heads>-<head dim>[-tp<N>].csv
    mla/prefill/<gpu>/<heads>-<nope dim>-<rope dim>.csv       not absorbed
    mla/decode/<gpu>/<heads>-<lora rank>-<rope dim>.csv       absorbed
    grouped_gemm/{prefill,decode}/<gpu>/data.csv              routed experts
    gdn/{prefill,decode}/<gpu>/<conv>-<key heads>-<key dim>-<value heads>-<value dim>.csv
    dsa/{prefill,decode}/<gpu>/attn-<heads>-<dim>-<top k>.csv, logits-<heads>-<dim>.csv

The number of heads in a file without ``-tp<N>`` is that of one rank; with it, that of the model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["FOLDERS", "LAYOUTS", "Column", "Layout", "key_of", "layout_of"]


@dataclass(frozen=True)
class Column:
    """One column of a file.

    Attributes
    ----------
    name
        Name we use.
    kind
        ``"count"`` (whole number >= ``minimum``), ``"time"`` (microseconds > 0), ``"share"`` (>= 0) or ``"dtype"``.
    minimum
        Smallest count.
    aliases
        Names that files use for it besides ours.
    """

    name: str
    kind: str = "count"
    minimum: int = 1
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """One family of files.

    Attributes
    ----------
    family, phase
        ``phase`` is ``"prefill"``, ``"decode"`` or ``""``.
    columns
        In the order of a file without a header.
    key
        Names of the numbers in the file name; empty where the name is ``data``.
    prefix
        What the file name begins with, before the numbers.
    axes
        Columns along which a curve or a grid runs; the other counts identify it.
    peak_dtype
        Matmul rate that the MFU column is relative to, by the layout's convention; "" where there is no MFU.
    causal
        Whether useful FLOPs are half of the full square.
    """

    family: str
    phase: str
    columns: tuple[Column, ...]
    axes: tuple[str, ...]
    key: tuple[str, ...] = ()
    prefix: str = ""
    peak_dtype: str = ""
    causal: bool = False

    @property
    def folder(self) -> str:
        """Top folder of the family."""
        return "dsa" if self.family.startswith("dsa") else self.family


_DTYPE, _KV_DTYPE = Column("dtype", "dtype"), Column("kv_dtype", "dtype")
_LATENCY, _MFU = Column("latency_us", "time", aliases=("latency", "latecy_us")), Column("mfu", "share")
_BATCH = Column("batch_size", aliases=("batchsize", "bs"))
_HEADS = ("num_attention_heads", "num_key_value_heads", "head_dim")
_PREFILL = (_DTYPE, Column("seq_len"), _LATENCY, _MFU)
_DECODE = (_DTYPE, _KV_DTYPE, _BATCH, Column("kv_len"), _LATENCY, _MFU)
_GDN_KEY = ("conv_kernel_dim", "num_key_heads", "key_head_dim", "num_value_heads", "value_head_dim")


def _grouped(tokens: str) -> tuple[Column, ...]:
    names = ("num_experts", "num_gpus", "num_local_experts", "num_experts_per_tok", "hidden_size", "intermediate_size")
    return (
        *(Column(name, aliases=("topk",) if name == "num_experts_per_tok" else ()) for name in names),
        Column(tokens),
        Column("tokens_per_expert", minimum=0),
        Column("up_proj_us", "time"),
        Column("up_mfu", "share"),
        Column("down_proj_us", "time"),
        Column("down_mfu", "share"),
    )


def _times(*names: str) -> tuple[Column, ...]:
    return tuple(Column(f"{name}_us", "time", aliases=(name,)) for name in names)


LAYOUTS = (
    Layout("gemm", "", (Column("m"), Column("k"), Column("n"), _LATENCY, _MFU), ("m",), peak_dtype="fp8"),
    Layout("mha", "prefill", _PREFILL, ("seq_len",), _HEADS, peak_dtype="bf16", causal=True),
    Layout("mha", "decode", _DECODE, ("batch_size", "kv_len"), _HEADS, peak_dtype="bf16"),
    Layout(
        "mla",
        "prefill",
        _PREFILL,
        ("seq_len",),
        ("num_attention_heads", "qk_nope_head_dim", "qk_rope_head_dim"),
        peak_dtype="bf16",
        causal=True,
    ),
    Layout(
        "mla",
        "decode",
        _DECODE,
        ("batch_size", "kv_len"),
        ("num_attention_heads", "kv_lora_rank", "qk_rope_head_dim"),
        peak_dtype="bf16",
    ),
    Layout("grouped_gemm", "prefill", _grouped("seq_len_per_gpu"), ("seq_len_per_gpu",), peak_dtype="fp8"),
    Layout("grouped_gemm", "decode", _grouped("batch_size_per_gpu"), ("batch_size_per_gpu",), peak_dtype="fp8"),
    Layout(
        "gdn",
        "prefill",
        (Column("seq_len"), *_times("conv", "kkt", "tril", "wu", "chunk_gdn", "chunk_o")),
        ("seq_len",),
        _GDN_KEY,
    ),
    Layout("gdn", "decode", (_BATCH, *_times("conv", "gdn_update")), ("batch_size",), _GDN_KEY),
    Layout(
        "dsa_attn",
        "prefill",
        (_DTYPE, Column("s_q"), Column("s_kv"), _LATENCY, _MFU),
        ("s_q", "s_kv"),
        ("num_attention_heads", "head_dim", "index_topk"),
        "attn-",
        "bf16",
    ),
    Layout(
        "dsa_attn",
        "decode",
        _DECODE,
        ("batch_size", "kv_len"),
        ("num_attention_heads", "head_dim", "index_topk"),
        "attn-",
        "bf16",
    ),
    Layout(
        "dsa_logits",
        "prefill",
        (Column("s_q"), Column("s_kv"), _LATENCY, _MFU),
        ("s_q", "s_kv"),
        ("index_n_heads", "index_head_dim"),
        "logits-",
        "fp8",
        causal=True,
    ),
    Layout(
        "dsa_logits",
        "decode",
        (_BATCH, Column("next_n"), Column("s_kv"), _LATENCY, _MFU),
        ("batch_size", "s_kv"),
        ("index_n_heads", "index_head_dim"),
        "logits-",
        "fp8",
    ),
)

FOLDERS = tuple(dict.fromkeys(layout.folder for layout in LAYOUTS))
"""Top folders of the layout."""


def layout_of(parts: tuple[str, ...]) -> tuple[Layout, str, str] | str | None:
    """Tell what a file is from its path inside the folder.

    Parameters
    ----------
    parts
        Path components, from the family's folder to the file name.

    Returns
    -------
    tuple
        Layout, GPU folder and file stem.
    str
        What is expected there, where the file stands in a family's folder but fits no layout.
    None
        The path belongs to no family.
    """
    if parts[0] not in FOLDERS:
        return None
    family = [layout for layout in LAYOUTS if layout.folder == parts[0]]
    *phase, gpu, name = parts[1:] if len(parts) > 2 else ("", "", "")
    candidates = [layout for layout in family if layout.phase == "/".join(phase)]
    if not candidates or not gpu:
        phases = "{prefill,decode}" if family[0].phase else ""
        return "/".join(part for part in (parts[0], phases, "<gpu>", "<file>.csv") if part)
    stem = name.removesuffix(".csv")
    for layout in candidates:
        if key_of(layout, stem) is not None:
            return layout, gpu, stem
    return " or ".join(_name_form(layout) for layout in candidates)


def key_of(layout: Layout, stem: str) -> tuple[tuple[int, ...], int | None] | None:
    """Read the numbers of a file name: the key, and the ``-tp<N>`` suffix if there is one; None if it does not fit."""
    if not layout.key:
        return ((), None) if stem == "data" else None
    numbers = "-".join([r"(\d{1,9})"] * len(layout.key))
    match = re.fullmatch(rf"{layout.prefix}{numbers}(?:-tp(\d{{1,4}}))?", stem)
    if match is None:
        return None
    *key, tp = match.groups()
    values = tuple(int(k) for k in key)
    if min(values) < 1 or tp == "0":
        return None
    return values, None if tp is None else int(tp)


def _name_form(layout: Layout) -> str:
    if not layout.key:
        return "data.csv"
    return f"{layout.prefix}{'-'.join(f'<{k}>' for k in layout.key)}[-tp<N>].csv"
