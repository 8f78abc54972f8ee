"""How a checkpoint's precision is found: config, sidecar, name, dtype; module by module."""

from mfuroof.models.detect.chain import detect

__all__ = ["detect"]
