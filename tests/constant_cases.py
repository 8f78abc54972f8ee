"""A GPU, models and steps of the constant-MFU tests, and short ways to bind and read that cost."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.costs.constant_mfu import BoundConstantMfu
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig, Quantization
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams

GPU = {"bf16": 989.5e12, "fp8": 1979e12, "bandwidth": 3.35e12}
H100 = Hardware.from_figures(
    "h100_figures", bf16_tflops_per_s=989.5, hbm_tb_per_s=3.35, fp8_tflops_per_s=1979, nvlink_gb_per_s=450
)
OURS = CostParams(mfu_prefill=0.5, mfu_decode=0.4)
LLAMA = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}

steps = st.tuples(
    st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 9_000)), max_size=5),
    st.lists(st.integers(0, 60_000), max_size=8),
)


def llama(**changes):
    return ModelConfig(**{**LLAMA, **changes})


def bind(model, params=OURS, hardware=H100, **parallel):
    return BoundConstantMfu.bind(model, hardware, Parallel(**parallel), params)


def times(bound, batch):
    out = np.full(len(batch), np.nan)
    bound.step_times(batch, out)
    return out


def parts(bound, batch):
    rows = np.full((1 + len(bound.components), len(batch)), np.nan)
    bound.breakdown(batch, rows)
    np.testing.assert_array_equal(rows[0], times(bound, batch))
    return dict(zip(bound.components, rows[1:], strict=True))


def ragged(*given_steps):
    return StepBatch.ragged(prefill=[p for p, _ in given_steps], decode=[d for _, d in given_steps])


def quantised(nbytes):
    return Quantization(method="gptq", weight_bits=8 * nbytes, weight_bytes_nominal=nbytes, source="config")


def latent():
    return ModelConfig(
        hidden_size=2048, num_hidden_layers=4, num_attention_heads=16, kv_lora_rank=512, q_lora_rank=None,
        qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128, intermediate_size=4096, vocab_size=1000,
        num_key_value_heads=16,
    )  # fmt: skip
