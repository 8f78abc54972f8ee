"""Small benchmark folders in the InferSim / BLIS layout, and short ways to bind and read the mfu_table cost."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.costs.mfu_table import BoundMfuTable
from mfuroof.hardware import Hardware
from mfuroof.models import ModelConfig
from mfuroof.parallel import Parallel
from mfuroof.params import CostParams
from mfuroof.precision import FORMATS

GPU = {"bf16": 989.5e12, "bandwidth": 3.35e12}
H100 = Hardware.from_figures(
    "h100_figures", bf16_tflops_per_s=989.5, hbm_tb_per_s=3.35, fp8_tflops_per_s=1979, nvlink_gb_per_s=450
)
H20 = Hardware.from_figures(
    "h20_figures", bf16_tflops_per_s=148, hbm_tb_per_s=4.096, fp8_tflops_per_s=296, nvlink_gb_per_s=450
)
SMALL = {
    "hidden_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 3000,
    "vocab_size": 5000,
}


def model(**changes):
    return ModelConfig(**{**SMALL, **changes})


def bind(tables, params, config=None, hardware=H100, **parallel):
    return BoundMfuTable.bind(config or model(), hardware, Parallel(**parallel), params, tables=tables)


def times(bound, batch):
    out = np.full(len(batch), np.nan)
    bound.step_times(batch, out)
    return out


def parts(bound, batch):
    rows = np.full((1 + len(bound.components), len(batch)), np.nan)
    bound.breakdown(batch, rows)
    np.testing.assert_array_equal(rows[0], times(bound, batch))
    return dict(zip(bound.components, rows[1:], strict=True))


def ragged(*steps):
    return StepBatch.ragged(prefill=[p for p, _ in steps], decode=[d for _, d in steps])


steps = st.tuples(
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 3000)), max_size=4),
    st.lists(st.integers(0, 20_000), max_size=6),
)

OURS = CostParams()
RAW = dataclasses.replace(OURS, monotone=False, weight_floor=False, kv_floor=False)

# ------------------------------------------------------------------------------------------------ small tables

TOKENS = (8, 16, 64, 256, 1024, 4096)
LENGTHS = (1024, 4096, 8192)
BATCHES = (1, 16, 64)
KV = (1024, 4096, 16384)


def gemm_seconds(m, k, n, peak=1979e12):
    """A kernel with a launch, a weight read and a rate that rises with m."""
    return 4e-6 + max(k * n / 2.6e12, 2 * m * k * n / (0.6 * peak)) + 1e-9 * m


def decode_seconds(batch, kv, heads=8, kv_heads=2, dim=128):
    return 9e-6 + batch * kv * 2 * kv_heads * dim * 2 / (3e12 * (0.5 + 0.5 * min(batch / 16, 1)))


def prefill_seconds(length, heads=8, dim=128):
    return 7e-6 + 2 * heads * dim * length**2 / (989.5e12 * 0.6)


def write(folder, name, header, rows):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


def put_gemm(folder, gpu="h100"):
    rows = []
    for k in (1024, 3072):
        for n in (1024, 3072, 6144):
            for m in TOKENS:
                s = gemm_seconds(m, k, n)
                rows.append((m, k, n, f"{s * 1e6:.6f}", f"{2 * m * k * n / (s * 1979e12):.6f}"))
    write(folder, f"gemm/{gpu}/data.csv", "m,k,n,latency_us,mfu", rows)


def put_attention(folder, gpu="h100", stems=("8-2-128",), zero=False):
    for stem in stems:
        heads, kv_heads, dim = map(int, stem.split("-"))
        rows = []
        for length in LENGTHS:
            s = prefill_seconds(length, heads, dim)
            rows.append(("bf16", length, f"{s * 1e6:.6f}", f"{2 * heads * dim * length**2 / (s * 989.5e12):.6f}"))
        write(folder, f"mha/prefill/{gpu}/{stem}.csv", "dtype,seq_len,latency_us,mfu", rows)
        for tp in (1, 2, None):
            rows, rank = [], max(heads // (tp or 1), 1)
            for batch in BATCHES:
                for kv in KV if batch < 64 else KV[:2]:
                    s = decode_seconds(batch, kv, rank, max(kv_heads // (tp or 1), 1), dim)
                    mfu = 4 * rank * dim * batch * kv / (s * 989.5e12)
                    text = "0.0" if zero and batch == 1 and kv == 1024 else f"{mfu:.6f}"
                    rows.append(("bf16", "bf16", batch, kv, f"{s * 1e6:.6f}", text))
            name = stem if tp is None else f"{stem}-tp{tp}"
            write(folder, f"mha/decode/{gpu}/{name}.csv", "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", rows)


def stored_as(config, dtype):
    """Give every matrix of the layers one storage format."""
    layers = []
    for spec in config.layers:
        names = sorted(m.name for m in config.modules(spec) if m.matrix_params)
        layers.append(dataclasses.replace(spec, formats=tuple((name, FORMATS[dtype]) for name in names)))
    object.__setattr__(config, "layers", tuple(layers))
    return config


def with_attention(config, **changes):
    """Change the attention of every layer."""
    changed = (dataclasses.replace(s, attention=dataclasses.replace(s.attention, **changes)) for s in config.layers)
    object.__setattr__(config, "layers", tuple(changed))
    return config
