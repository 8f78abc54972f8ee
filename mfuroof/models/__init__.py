"""Model architectures and their precision, from Hugging Face configs or plain numbers."""

from mfuroof.models.config import ModelConfig
from mfuroof.models.modules import MODULE_KINDS, Module
from mfuroof.models.quantization import Quantization
from mfuroof.models.registry import get_model, known_models
from mfuroof.models.specs import (
    AttentionSpec,
    CompressedSpec,
    IndexerSpec,
    LayerSpec,
    LinearSpec,
    MambaSpec,
    MlaSpec,
    MlpSpec,
)

__all__ = [
    "MODULE_KINDS",
    "AttentionSpec",
    "CompressedSpec",
    "IndexerSpec",
    "LayerSpec",
    "LinearSpec",
    "MambaSpec",
    "MlaSpec",
    "MlpSpec",
    "ModelConfig",
    "Module",
    "Quantization",
    "get_model",
    "known_models",
]
