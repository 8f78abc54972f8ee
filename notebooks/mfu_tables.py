# %% [markdown]
# # MFU tables and lookup rules
#
# Many simulators keep a table of MFU (model FLOPs utilisation) by shape and look up a neighbour. Two things go wrong:
# the rule makes a sawtooth, and the MFU is relative to something else than the reader thinks. Both are shown here.

# %%
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import mfuroof as mr
from mfuroof import lookup
from mfuroof.ops.slices import slice_of
from mfuroof.tables.compiled import Table1D

DRAW = find_spec("matplotlib") is not None

# %% [markdown]
# ## The sawtooth
#
# A GEMM of Llama-3.1-8B, measured on an H100 at 74 token counts. Keep the powers of two only, as a sparse table would,
# and ask for everything in between.

# %%
measured = slice_of(mr.load_tables("h100_sxm"), "gemm", dtype="bf16", k=4096, n=6144).table
kept = np.isin(measured.grid, 2.0 ** np.arange(0, 14))
coarse = Table1D("m", measured.grid[kept], measured.values[kept])
m = np.arange(128, 4097)
linear, floor = lookup.linear(coarse, m), lookup.floor(coarse, m)

# %% [markdown]
# Floor reads the *utilisation* of the grid point below, so just below the next point a GEMM is charged the poor
# utilisation of half its size. In time, that is up to twice what the neighbour measures:

# %%
utilisation = lookup.floor(Table1D("m", coarse.grid, coarse.grid / coarse.values), m)  # tokens a second
floor_mfu_time = m / utilisation
at = np.flatnonzero(m == 255)[0]
after = np.flatnonzero(m == 256)[0]
print(f"m = 255: floor of MFU says {floor_mfu_time[at] * 1e6:.1f} us, m = 256: {floor_mfu_time[after] * 1e6:.1f} us")
assert floor_mfu_time[at] > 1.7 * floor_mfu_time[after]  # one token more, and the time nearly halves
assert (np.diff(linear) > -0.02 * linear[:-1]).all()  # interpolated latency follows the measurement's own wiggles only

# %%
between = ~kept & (measured.grid > 128) & (measured.grid < 4096)
truth, where = measured.values[between], measured.grid[between]


def error(time: np.ndarray) -> float:
    """Return the mean absolute relative error at the measured points that were left out."""
    return float(np.mean(np.abs(time / truth - 1.0)))


errors = {
    "linear in latency": error(lookup.linear(coarse, where)),
    "log-log of latency": error(lookup.loglog(coarse, where)),
    "nearest latency": error(lookup.nearest(coarse, where)),
    "floor of MFU": error(where / lookup.floor(Table1D("m", coarse.grid, coarse.grid / coarse.values), where)),
}
for rule, size in errors.items():
    print(f"{rule:<20} {size:6.1%}")
assert min(errors, key=errors.__getitem__) in ("linear in latency", "log-log of latency")
assert errors["floor of MFU"] > 2 * errors["linear in latency"]

# %%
if DRAW:
    from matplotlib import pyplot

    from mfuroof import plots

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    left.plot(m, floor_mfu_time * 1e6, label="floor of MFU")
    left.plot(m, linear * 1e6, label="linear in latency")
    left.plot(where, truth * 1e6, ".", color="black", label="measured, left out")
    left.set_xlim(128, 1100)  # where the utilisation still rises, the teeth are
    left.set_ylim(15, 95)
    left.set_xlabel("m [tokens]")
    left.set_ylabel("time [us]")
    left.legend()
    plots.kernel_heatmap(
        mr.load_tables("h100_sxm"), "gemm", mfu_of=mr.get_hardware("h100_sxm"), dtype="bf16", k=4096, ax=right
    )

# %% [markdown]
# ## An MFU of 4.2
#
# Some tables once circulated with an MFU of 4.222 for prefill attention on an H100 and of 1.019 for a GEMM: more than
# the hardware can do. Such files are built again here: each latency is FLOPs / (utilisation x true peak), and the MFU
# is written against the wrong one. Prefill attention was divided by the 148 TFLOP/s of an H20, an FP8 GEMM by the BF16
# peak. The rows around those two values are made with round utilisations.

# %%
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
heads, head_dim, h20_bf16, h100_bf16, h100_fp8 = 32, 128, 148e12, 989.5e12, 1979e12
prefill = folder / "mha" / "prefill" / "h100" / "32-8-128.csv"
gemm = folder / "gemm" / "h100" / "data.csv"

lines = ["dtype,seq_len,latency_us,mfu"]
for tokens, utilisation in ((1024, 0.25), (4096, 0.6315), (8192, 0.72), (16_384, 0.75)):
    work = 4 * heads * head_dim * tokens**2 / 2  # the causal half
    seconds = work / (utilisation * h100_bf16)
    lines.append(f"bf16,{tokens},{seconds * 1e6:.3f},{work / seconds / h20_bf16:.3f}")
prefill.parent.mkdir(parents=True)
prefill.write_text("\n".join(lines) + "\n")
assert lines[2].endswith(",4.222")

lines = ["m,k,n,latency_us,mfu"]
for tokens, utilisation in ((64, 0.09), (512, 0.40), (4096, 0.5096), (8192, 0.60)):
    work = 2 * tokens * 4096 * 6144
    seconds = work / (utilisation * h100_fp8)
    lines.append(f"{tokens},4096,6144,{seconds * 1e6:.3f},{work / seconds / h100_bf16:.3f}")
gemm.parent.mkdir(parents=True)
gemm.write_text("\n".join(lines) + "\n")
assert lines[3].endswith(",1.019")

# %% [markdown]
# `audit` recomputes the FLOPs of each row, finds the peak that explains every printed digit, and names it.

# %%
report = mr.audit(folder)
print(report)
found = report.of(severity="error", code="denominator")
assert len(found) == 2
assert any("148 TFLOP/s, bf16 of h20" in finding.text for finding in found)

# %% [markdown]
# Latency is the truth, so lookups recompute the MFU and are right all the same:

# %%
data = mr.load_bench_data(folder)
mfu = float(data.attn_prefill_mfu("h100", heads, 8, head_dim, 4096))
print(f"MFU at 4,096 tokens: printed 4.222, recomputed {mfu:.4f}")
assert abs(mfu - 0.6315) < 0.0005  # the file prints latencies to a nanosecond; the catalogue's peak is 989.4
