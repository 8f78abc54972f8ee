"""A decoder with random weights in torch, to time whole steps: grouped-query attention, gated MLPs, 16 bit.

It does what an engine does on the GPU in one step, and nothing around it: embedding, fused QKV and gate-up products,
rotary embedding, writing the cache, attention of decode requests and of prompts, norms with residuals, the LM head of
the last tokens, and the choice of the likeliest token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mfuroof.collect.torch_attention import Attend
from mfuroof.errors import ConfigError, Problem
from mfuroof.models import ModelConfig

__all__ = ["Decoder", "StepShape", "check_decoder"]

ROTARY_BASE = 500_000.0


@dataclass(frozen=True)
class StepShape:
    """One uniform step: counts and lengths as in `StepBatch.uniform`."""

    decode_batch: int
    decode_context: int
    prefill_batch: int
    prefill_new_tokens: int
    prefill_context: int

    @property
    def tokens(self) -> int:
        """Tokens the step computes."""
        return self.decode_batch + self.prefill_batch * self.prefill_new_tokens

    @property
    def cached_tokens(self) -> int:
        """Tokens in the cache when the step has ended."""
        prompts = self.prefill_batch * (self.prefill_context + self.prefill_new_tokens)
        return self.decode_batch * (self.decode_context + 1) + prompts


def check_decoder(model: ModelConfig) -> None:
    """Raise `ConfigError` for a model that is not all grouped-query attention and gated dense MLPs."""
    for layer in model.layers:
        a, m = layer.attention, layer.mlp
        plain = a.kind == "gqa" and a.head_dim == a.v_head_dim and not a.sliding_window
        if not plain or m.kind != "dense" or m.num_matrices != 3:
            found = f"{a.kind} attention and {m.kind} MLPs"
            raise ConfigError(Problem(model.name, found, "grouped-query attention without a window and gated MLPs"))


class Decoder:
    """Weights and caches of a model on one device.

    Parameters
    ----------
    model
        Architecture; see `check_decoder`.
    torch, place
        The library and the device.
    room_tokens
        Tokens the cache of each layer has room for.
    """

    def __init__(self, model: ModelConfig, torch: Any, place: Any, room_tokens: int) -> None:
        check_decoder(model)
        self.model, self.torch, self.place, self.room_tokens = model, torch, place, room_tokens
        heads, kv_heads, dim = model.num_attention_heads, model.num_key_value_heads, model.head_dim
        hidden, width = model.hidden_size, model.intermediate_size
        self.split = (heads * dim, kv_heads * dim, kv_heads * dim)

        def weight(n: int, k: int) -> Any:
            return torch.randn(n, k, device=place, dtype=torch.bfloat16) * k**-0.5

        self.layers = [
            {
                "qkv": weight(sum(self.split), hidden),
                "o": weight(hidden, heads * dim),
                "gate_up": weight(2 * width, hidden),
                "down": weight(hidden, width),
                "keys": torch.randn(room_tokens, kv_heads, dim, device=place, dtype=torch.bfloat16),
                "values": torch.randn(room_tokens, kv_heads, dim, device=place, dtype=torch.bfloat16),
            }
            for _ in range(model.num_hidden_layers)
        ]
        self.norm = torch.ones(hidden, device=place, dtype=torch.bfloat16)
        self.embedding = weight(model.vocab_size, hidden)
        self.head = self.embedding if model.tie_word_embeddings else weight(model.vocab_size, hidden)
        self.angle = ROTARY_BASE ** (-torch.arange(0, dim, 2, device=place).float() / dim)

    def step(self, shape: StepShape, ids: Any, attend: Attend) -> Any:
        """Run one step over token ids (tokens,) and return the likeliest next token of each request."""
        return self.logits(shape, ids, attend).argmax(dim=-1)

    def logits(self, shape: StepShape, ids: Any, attend: Attend) -> Any:
        """Run one step and return the logits (requests, vocabulary) of the last token of each request.

        Decode requests come first, then prompts one after another; the cache holds them in the same order.
        """
        functional, torch = self.torch.nn.functional, self.torch
        positions, slots, last = self._places(shape)
        turn = positions[:, None].float() * self.angle
        cosine, sine = (f(turn).to(torch.bfloat16)[:, None, :] for f in (torch.cos, torch.sin))
        hidden_size = (self.model.hidden_size,)
        residual = functional.embedding(ids, self.embedding)
        for layer in self.layers:
            x = functional.rms_norm(residual, hidden_size, self.norm)
            query, key, value = functional.linear(x, layer["qkv"]).split(self.split, dim=-1)
            query, key, value = (t.unflatten(-1, (-1, self.model.head_dim)) for t in (query, key, value))
            query, key = _rotated(torch, query, cosine, sine), _rotated(torch, key, cosine, sine)
            layer["keys"].index_copy_(0, slots, key)
            layer["values"].index_copy_(0, slots, value)
            residual = residual + functional.linear(self._attended(shape, layer, query, attend), layer["o"])
            x = functional.rms_norm(residual, hidden_size, self.norm)
            gate, up = functional.linear(x, layer["gate_up"]).chunk(2, dim=-1)
            residual = residual + functional.linear(functional.silu(gate) * up, layer["down"])
        x = functional.rms_norm(residual[last], hidden_size, self.norm)
        return functional.linear(x, self.head)

    def _attended(self, shape: StepShape, layer: dict[str, Any], query: Any, attend: Attend) -> Any:
        parts = []
        first = shape.decode_batch
        split = shape.decode_batch * (shape.decode_context + 1)
        for rows, start, batch, total in (
            (query[:first], 0, shape.decode_batch, shape.decode_context + 1),
            (query[first:], split, shape.prefill_batch, shape.prefill_context + shape.prefill_new_tokens),
        ):
            if batch and len(rows):
                slots = slice(start, start + batch * total)
                cached = (layer[name][slots].unflatten(0, (batch, total)) for name in ("keys", "values"))
                parts.append(attend(rows.unflatten(0, (batch, -1)), *cached).flatten(0, 1).flatten(1))
        return parts[0] if len(parts) == 1 else self.torch.cat(parts)

    def _places(self, shape: StepShape) -> tuple[Any, Any, Any]:
        """Return positions and cache slots of the step's tokens, and the rows that emit a token."""
        torch, place = self.torch, self.place
        context, new, prefix = shape.decode_context, shape.prefill_new_tokens, shape.prefill_context
        decode = torch.arange(shape.decode_batch, device=place)
        tokens = torch.arange(shape.prefill_batch * new, device=place)
        within, request = tokens % max(new, 1), tokens // max(new, 1)
        after = shape.decode_batch * (context + 1)
        positions = torch.cat([torch.full_like(decode, context), prefix + within])
        slots = torch.cat([decode * (context + 1) + context, after + request * (prefix + new) + prefix + within])
        ends = shape.decode_batch + (torch.arange(shape.prefill_batch, device=place) + 1) * new - 1
        return positions, slots, torch.cat([decode, ends])


def _rotated(torch: Any, x: Any, cosine: Any, sine: Any) -> Any:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)
