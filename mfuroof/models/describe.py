"""A model in words: one line for a prompt, rows for a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfuroof.models.specs import AttentionSpec, LayerSpec, MlpSpec
from mfuroof.units import GB

if TYPE_CHECKING:
    from mfuroof.models.config import ModelConfig

__all__ = ["count_text", "one_line", "rows"]


def count_text(n: float) -> str:
    """Return a count with three significant figures.

    Examples
    --------
    >>> count_text(8030261248), count_text(1026408209408)
    ('8.03B', '1.03T')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:g}"


def one_line(m: ModelConfig) -> str:
    """Return what a prompt shows."""
    size = count_text(m.total_params)
    if m.is_moe:
        size += f" ({count_text(m.active_params)} active)"
    q = m.quantization
    weights = f"{q.method if q.method != 'none' else m.dtype}, {m.weight_bytes / GB:.4g} GB"
    return (
        f"<ModelConfig {m.name or m.model_type or 'unnamed'}: {size} params, "
        f"{m.num_hidden_layers} layers, hidden {m.hidden_size}, {weights}>"
    )


def rows(m: ModelConfig) -> list[tuple[str, str]]:
    """Return (label, value) rows: sizes, layers, components, precision."""
    q = m.quantization
    out = [
        ("name", m.name or "(unnamed)"),
        ("model type", m.model_type or "(from numbers)"),
        ("parameters", f"{m.total_params:,} ({count_text(m.total_params)}){'' if m.exact else ', not exact'}"),
    ]
    if m.is_moe:
        out.append(("active parameters", f"{m.active_params:,} ({count_text(m.active_params)})"))
    out += [(f"  {kind}", f"{n:,}") for kind, n in m.params_by_component().items()]
    out += [("hidden size", str(m.hidden_size)), ("vocabulary", f"{m.vocab_size}{', tied' * m.tie_word_embeddings}")]
    out += [(f"layers x {s.count}", _layer(s)) for s in m.layers]
    out += [
        ("dtype", m.dtype),
        ("quantisation", f"{q.method} ({q.source})"),
        ("weight bits", f"{q.weight_bits:g}" + (f", groups of {q.group_size}" if q.group_size else "")),
        ("bytes per quantised weight", f"{q.weight_bytes_effective:.4f}"),
        ("computes as", q.compute_class + (" (weight-only)" if q.weight_only else "")),
        ("weights", f"{m.weight_bytes / GB:.3f} GB ({m.weight_bytes / m.total_params:.4f} bytes a parameter)"),
        ("KV cache", f"{m.kv_dtype}, {m.kv_bytes_per_token:,.0f} bytes a token"),
    ]
    if m.kv_layout.state_bytes:
        out.append(("state", f"{m.kv_layout.state_bytes:,.0f} bytes a sequence"))
    out += [("read from", f"{fact}: {where}") for fact, where in q.origins]
    return out + [("warning", text) for text in q.warnings]


def _layer(s: LayerSpec) -> str:
    formats = sorted({f.name for _, f in s.formats})
    text = "; ".join(t for t in (_attention(s.attention), _mlp(s.mlp)) if t)
    return f"{text} [{', '.join(formats)}]" if formats else text


def _attention(a: AttentionSpec) -> str:
    if a.mla is not None:
        text = f"MLA {a.num_attention_heads} heads, latent {a.mla.kv_lora_rank}+{a.mla.qk_rope_head_dim}"
    elif a.compressed is not None:
        text = f"compressed 1/{a.compressed.ratio or 1}, {a.num_attention_heads} heads of {a.head_dim}"
    elif a.linear is not None:
        text = f"linear ({a.linear.variant}), {a.linear.num_value_heads} heads of {a.linear.value_head_dim}"
    elif a.mamba is not None:
        text = f"Mamba-2, {a.mamba.num_heads} heads of {a.mamba.head_dim}, state {a.mamba.state_size}"
    elif a.kind == "none":
        return ""
    else:
        text = f"{a.num_attention_heads} heads / {a.num_key_value_heads} KV of {a.head_dim}"
    if a.sliding_window:
        text += f", {'chunks' if a.chunked else 'window'} of {a.sliding_window}"
    if a.indexer is None:
        return text
    return text + f", {'indexer' if a.indexer.num_heads else 'an earlier layer'}'s top {a.indexer.topk_tokens}"


def _mlp(m: MlpSpec) -> str:
    if m.kind == "none":
        return ""
    if m.kind == "dense":
        return f"MLP {m.intermediate_size} x {m.num_matrices}"
    text = f"{m.num_experts_per_tok} of {m.num_experts} experts of {m.moe_intermediate_size}"
    if m.shared_intermediate_size:
        text += f", shared {m.shared_intermediate_size}"
    return text + (f", dense {m.dense_intermediate_size}" if m.dense_intermediate_size else "")
