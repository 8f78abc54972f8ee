"""Attention in torch and the packages beside it: several implementations of one shape compete."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mfuroof.collect.backend import Kernel, KernelUnsupportedError
from mfuroof.collect.point import Point

if TYPE_CHECKING:
    from mfuroof.collect.torch_backend import TorchBackend

__all__ = ["Attend", "attend_of", "attention", "attention_variants"]

TOLERANCE = 2e-2
"""bf16 scores, weights and result."""
PAGE_TOKENS = 256
"""Tokens of one page of a paged cache: the smallest that FlashAttention 2 takes. [tokens]"""

Attend = Callable[[Any, Any, Any], Any]
"""(queries, keys, values), each (batch, tokens, heads, width) -> output like the queries.

The last query sees every key, the one before it all but the last, and so on.
"""


def attention_variants(backend: TorchBackend, family: str) -> tuple[str, ...]:
    """Return the implementations of a family that this device and these packages have, the likely fastest first.

    ``flash`` is torch's FlashAttention 2 (with split KV in decode), ``cudnn`` cuDNN's, ``fa2`` and ``fa3`` are the
    packages flash-attn; ``_paged`` reads the cache through a table of pages. ``sdpa`` is what torch chooses itself.
    """
    if not backend.on_gpu:
        return ("sdpa",)
    there = ["flash"]
    if family != "attn_extend":  # torch lets cuDNN align a causal mask at the first key only
        there.append("cudnn")
    for name, package in (("fa3", "flash_attn_interface"), ("fa2", "flash_attn")):
        if importlib.util.find_spec(package) is not None:
            there += [name, f"{name}_paged"] if family == "attn_decode" else [name]
    return tuple(there)


def attention(backend: TorchBackend, point: Point) -> Kernel:
    """Return causal attention of new tokens behind what is cached."""
    keys = point.keys
    heads, kv_heads = int(keys["num_attention_heads"]), int(keys["num_key_value_heads"])
    batch, dim = int(keys["batch_size"]), int(keys["head_dim"])
    if keys["attn_dtype"] != "bf16" or keys["kv_dtype"] != "bf16" or keys["sliding_window"]:
        raise KernelUnsupportedError("only 16-bit attention without a window is collected")
    new = int(keys.get("new_tokens", 1))
    total = int(keys["kv_len"]) if "kv_len" in keys else new + int(keys.get("context_len", 0))
    sets = backend.sets(4.0 * batch * kv_heads * total * dim)
    query = backend.random(batch, new, heads, dim)
    key = backend.random(sets, batch, total, kv_heads, dim)
    value = backend.random(sets, batch, total, kv_heads, dim)
    if point.variant.endswith("_paged"):
        return _paged(backend, point.variant, query, key, value)
    attend = attend_of(backend.torch, point.variant)
    return Kernel(
        lambda i: attend(query, key[i % sets], value[i % sets]),
        sets,
        lambda: _error(backend.torch, attend(query, key[0], value[0]), query, key[0], value[0]),
        TOLERANCE,
    )


def attend_of(torch: Any, variant: str) -> Attend:
    """Return the function of an implementation."""
    if variant == "flash":
        return lambda q, k, v: torch.ops.aten._flash_attention_forward(
            q, k, v, None, None, q.shape[1], k.shape[1], 0.0, q.shape[1] > 1, False
        )[0]
    if variant == "fa2":
        from flash_attn import flash_attn_func as fa2

        return lambda q, k, v: fa2(q, k, v, causal=True)
    if variant == "fa3":
        from flash_attn_interface import flash_attn_func as fa3

        return lambda q, k, v: _first(fa3(q, k, v, causal=True))
    from torch.nn.attention import SDPBackend, sdpa_kernel

    attend = torch.nn.functional.scaled_dot_product_attention

    def scaled(q: Any, k: Any, v: Any) -> Any:
        new, total = q.shape[1], k.shape[1]
        mask = None
        if 1 < new < total:
            if variant == "cudnn":
                raise KernelUnsupportedError("cuDNN through torch aligns a causal mask at the first key")
            mask = torch.ones(new, total, dtype=torch.bool, device=q.device).tril(total - new)
        rows = (q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
        return attend(*rows, attn_mask=mask, is_causal=new == total > 1, enable_gqa=True).transpose(1, 2)

    if variant == "sdpa":
        return scaled

    def by_cudnn(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return scaled(q, k, v)

    return by_cudnn


def _paged(backend: TorchBackend, variant: str, query: Any, key: Any, value: Any) -> Kernel:
    """Return attention over a cache whose pages lie in random order, as an engine's do."""
    torch = backend.torch
    sets, batch, total, kv_heads, dim = key.shape
    pages = -(-total // PAGE_TOKENS)
    padded = [torch.nn.functional.pad(t, (0, 0, 0, 0, 0, pages * PAGE_TOKENS - total)) for t in (key, value)]
    shuffled = torch.randperm(sets * batch * pages, device=backend.place)
    stores = []
    for t in padded:
        store = torch.empty(sets * batch * pages, PAGE_TOKENS, kv_heads, dim, dtype=t.dtype, device=t.device)
        store[shuffled] = t.reshape(sets * batch * pages, PAGE_TOKENS, kv_heads, dim)
        stores.append(store)
    table = shuffled.reshape(sets, batch, pages).int()
    lengths = torch.full((batch,), total, dtype=torch.int32, device=backend.place)
    if variant == "fa3_paged":
        from flash_attn_interface import flash_attn_with_kvcache as with_cache

        page_table = "page_table"
    else:
        from flash_attn import flash_attn_with_kvcache as with_cache

        page_table = "block_table"

    def run(i: int) -> Any:
        pages_of_set = {page_table: table[i % sets]}
        return _first(with_cache(query, *stores, cache_seqlens=lengths, causal=True, **pages_of_set))

    return Kernel(run, sets, lambda: _error(torch, run(0), query, key[0], value[0]), TOLERANCE)


def _first(answer: Any) -> Any:
    return answer[0] if isinstance(answer, tuple) else answer


def _error(torch: Any, found: Any, query: Any, key: Any, value: Any) -> float:
    """Return the relative error of some queries of some heads against float64; NaN where anything is not finite."""
    if not bool(torch.isfinite(found).all()):
        return float("nan")
    batch, new, heads, dim = query.shape
    total, group = key.shape[1], heads // key.shape[2]
    error = norm = 0.0
    rows = torch.linspace(0, new - 1, min(new, 6)).long()
    for b, h in {(0, 0), (batch - 1, heads - 1), (batch // 2, heads // 2)}:
        k, v = (t[b, :, h // group].float().cpu().double() for t in (key, value))
        q = query[b, rows.to(query.device), h].float().cpu().double()
        scores = q @ k.t() * dim**-0.5
        hidden = torch.arange(total)[None, :] > (rows + total - new)[:, None]
        reference = torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1) @ v
        part = found[b, rows.to(query.device), h].float().cpu().double()
        error += float((part - reference).norm() ** 2)
        norm += float(reference.norm() ** 2)
    return float((error / norm) ** 0.5)
