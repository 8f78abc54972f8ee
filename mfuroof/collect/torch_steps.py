"""Whole steps as kernels: a decoder kept from point to point, one captured graph a shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mfuroof.collect.backend import Kernel
from mfuroof.collect.decoder import Decoder, StepShape
from mfuroof.collect.plan_steps import known_model, kv_room_tokens
from mfuroof.collect.point import Point
from mfuroof.collect.torch_attention import attend_of

if TYPE_CHECKING:
    from mfuroof.collect.torch_backend import TorchBackend

__all__ = ["step"]

TOLERANCE = 0.1
"""Between logits under two implementations of attention: bf16 rounding through all layers."""
CHECKED_TOKENS = 4096
"""Largest step that is compared with torch's plain attention; larger ones would need its score matrices."""


def step(backend: TorchBackend, point: Point) -> Kernel:
    """Return one step of a decoder with random weights; the decoder is built by the first point that needs it."""
    name = str(point.keys["model"])
    decoder = _decoder(backend, name)
    shape = StepShape(*(int(v) for k, v in point.keys.items() if k != "model"))
    torch = backend.torch
    ids = torch.randint(0, decoder.model.vocab_size, (shape.tokens,), device=backend.place)
    attend = attend_of(torch, _fastest(backend))
    plain = attend_of(torch, "sdpa")

    def check() -> float:
        logits = decoder.logits(shape, ids, attend)
        if not bool(torch.isfinite(logits).all()):
            return float("nan")
        if shape.tokens > CHECKED_TOKENS or shape.cached_tokens > 16 * CHECKED_TOKENS:
            return 0.0
        other = decoder.logits(shape, ids, plain).float()
        return float((logits.float() - other).norm() / other.norm())

    return Kernel(lambda i: decoder.step(shape, ids, attend), 1, check, TOLERANCE)


def _decoder(backend: TorchBackend, name: str) -> Decoder:
    kept: dict[str, Any] = backend.kept
    if name not in kept:
        kept.clear()
        model = known_model(name)
        room = kv_room_tokens(model, backend.device.memory_bytes) if backend.on_gpu else 256
        kept[name] = Decoder(model, backend.torch, backend.place, room)
    decoder: Decoder = kept[name]
    return decoder


def _fastest(backend: TorchBackend) -> str:
    return "flash" if backend.on_gpu else "sdpa"
