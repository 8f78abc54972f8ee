"""The audit: each kind of fault is made in a small file and must be found; sound files must come out clean."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof.errors import MfuroofWarning
from mfuroof.tables.audit import audit
from mfuroof.tables.load import load_bench_data

PEAKS = {
    "h100_sxm": {"bf16": 989.4e12, "fp16": 989.4e12, "fp8": 1978.9e12, "hbm_bytes_per_s": 3.35e12},
    "h100_pcie": {"bf16": 756e12, "fp8": 1513e12, "hbm_bytes_per_s": 2e12},
    "h20": {"bf16": 148e12, "fp8": 296e12, "hbm_bytes_per_s": 4e12},
    "b200_sxm": {"bf16": 2250e12, "fp8": 4500e12, "hbm_bytes_per_s": 8e12},
}
LENGTHS = (1024, 2048, 4096, 8192, 16384)
PREFILL = "mha/prefill/h100/32-8-128.csv"
DECODE = "mha/decode/h100/32-8-128.csv"
GEMM = "gemm/h100/data.csv"


def write(root, name, lines):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return root


def prefill(peak, share=2.0, digits=3, lengths=LENGTHS):
    """A file of 600 TFLOP/s (causal half) that was made with another peak and share of the square's 4HDS^2."""
    rows = []
    for s in lengths:
        us = round(2 * 32 * 128 * s * s / 600e12 * 1e6, 3)
        rows.append(f"bf16,{s},{us},{round(4 * 32 * 128 * s * s / share / (us * 1e-6) / peak, digits)}")
    return ["dtype,seq_len,latency_us,mfu", *rows]


def gemm(peak, rate, ms=(64, 512, 4096), k=4096, n=6144):
    rows = []
    for m in ms:
        us = round(2 * m * k * n / rate * 1e6, 3)
        rows.append(f"{m},{k},{n},{us},{round(2 * m * k * n / (us * 1e-6) / peak, 3)}")
    return ["m,k,n,latency_us,mfu", *rows]


def decode(latencies, digits=4, peak=989.4e12):
    """latencies: {(batch, kv): us}."""
    rows = [
        f"bf16,bf16,{b},{kv},{us},{round(4 * 32 * 128 * b * kv / (us * 1e-6) / peak, digits)}"
        for (b, kv), us in latencies.items()
    ]
    return ["dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", *rows]


STEADY = {
    (b, kv): round(3.0 + b * kv * 2 * 8 * 128 * 2 / 3.0e12 * 1e6, 3) for b in (1, 16) for kv in (1024, 4096, 16384)
}


def only(report, code):
    (finding,) = report.of(code=code)
    return finding


@pytest.mark.parametrize("peak", [989.4e12, 989.5e12, 989.0e12])
def test_a_sound_file_is_clean_and_its_peak_is_named(tmp_path, peak):
    """989.4, 989.5 and 989 are one datasheet's figure, rounded."""
    report = audit(write(tmp_path, PREFILL, prefill(peak)), PEAKS)
    finding = only(report, "peak")
    assert "bf16 of h100_sxm, causal half" in finding.text
    low, high = finding.numbers["peak_low_flops_per_s"], finding.numbers["peak_high_flops_per_s"]
    assert low <= peak <= high and finding.numbers["rows_agreeing"] == len(LENGTHS)
    assert report.exit_code == 0 and not report.of(severity="warning")
    assert {f.code for f in report.findings} == {"peak", "coverage"}
    assert "seq_len 1024 .. 16384" in only(report, "coverage").text


def test_a_prefill_file_relative_to_another_gpu_is_an_error(tmp_path):
    report = audit(write(tmp_path, PREFILL, prefill(148e12)), PEAKS)
    finding = only(report, "denominator")
    assert finding.severity == "error" and report.exit_code == 2
    assert "148 TFLOP/s, bf16 of h20, causal half, not to h100_sxm" in finding.text


@pytest.mark.parametrize(("share", "words"), [(1.0, "full square"), (1.8, "square / 1.8")])
def test_another_share_of_the_square_is_named(tmp_path, share, words):
    report = audit(write(tmp_path, PREFILL, prefill(989.4e12, share)), PEAKS)
    finding = only(report, "flop-convention")
    assert words in finding.text and "bf16 of h100_sxm" in finding.text and report.exit_code == 1


def test_an_fp8_kernel_relative_to_the_bf16_peak_is_an_error(tmp_path):
    report = audit(write(tmp_path, GEMM, gemm(989.4e12, 1286e12)), PEAKS)
    finding = only(report, "denominator")
    assert finding.severity == "error"
    assert "bf16 of h100_sxm" in finding.text and "1286 TFLOP/s" in finding.text and "fp8" in finding.text


def test_a_gemm_that_may_be_bf16_is_a_warning(tmp_path):
    finding = only(audit(write(tmp_path, GEMM, gemm(989.4e12, 700e12)), PEAKS), "denominator")
    assert finding.severity == "warning"


def test_a_gemm_relative_to_its_fp8_peak_is_clean(tmp_path):
    report = audit(write(tmp_path, GEMM, gemm(1978.9e12, 1286e12, ms=(1024, 4096, 8192))), PEAKS)
    assert "fp8 of h100_sxm" in only(report, "peak").text and report.exit_code == 0


def test_a_peak_of_no_gpu_is_an_error(tmp_path):
    finding = only(audit(write(tmp_path, PREFILL, prefill(1234e12)), PEAKS), "denominator")
    assert finding.severity == "error" and "no known GPU" in finding.text


@pytest.mark.parametrize(("peaks", "exit_code"), [({"h20": PEAKS["h20"]}, 1), (None, 0)])
def test_without_figures_the_interval_is_still_reported(tmp_path, peaks, exit_code):
    report = audit(write(tmp_path, PREFILL, prefill(989.4e12)), peaks)
    assert "989" in only(report, "no-peaks").text and report.exit_code == exit_code


@settings(max_examples=25)
@given(st.floats(50e12, 5000e12), st.integers(2, 6), st.integers(0, 10**6))
def test_the_peak_is_found_for_any_peak_and_rounding(tmp_path_factory, peak, digits, seed):
    """The intersected interval always contains the peak that a file was made with."""
    rng = np.random.default_rng(seed)
    rows = []
    for s in sorted(rng.choice(np.arange(64, 4000), 8, replace=False)):
        us = round(float(2 * 32 * 128 * s * s / (rng.uniform(0.05, 0.9) * peak) * 1e6), 3) + 0.001
        rows.append(f"bf16,{s},{us:.3f},{2.0 * 32 * 128 * s * s / (round(us, 3) * 1e-6) / peak:.{digits}f}")
    root = write(tmp_path_factory.mktemp("bench"), PREFILL, ["dtype,seq_len,latency_us,mfu", *rows])
    numbers = only(audit(root, {"mine": {"bf16": peak}}), "no-peaks").numbers
    assert numbers["peak_low_flops_per_s"] <= peak * (1 + 1e-12)
    assert peak <= numbers["peak_high_flops_per_s"] * (1 + 1e-12)
    assert numbers["rows_agreeing"] == numbers["rows"]


def test_rounding_and_zero_cells_are_counted(tmp_path):
    report = audit(write(tmp_path, DECODE, decode({**STEADY, (1, 64): 40.0, (1, 256): 2.6}, digits=3)), PEAKS)
    zero = only(report, "zero-cells")
    assert zero.numbers["rows"] == 1 and zero.lines == (8,) and "division by zero" in zero.text
    assert only(report, "rounding").numbers["decimals"] == 3 and report.exit_code == 1
    assert not audit(write(tmp_path, DECODE, decode(STEADY, digits=6)), PEAKS).of(code="rounding")


def test_only_rows_that_rounding_moved_are_counted(tmp_path):
    """At three digits 0.009 is within 6 %: one row happens to be exact, one is moved, one is a zero."""
    flops = 4 * 32 * 128 * 1024 / 989.4e12 * 1e6
    rows = {(1, 1024): flops / 0.00901, (2, 1024): 2 * flops / 0.00949, (4, 1024): 4 * flops / 0.0004}
    rows = {**rows, **{(b, 8192): 8 * b * flops / 0.5 for b in (1, 2)}}
    report = audit(write(tmp_path, DECODE, decode({at: round(us, 6) for at, us in rows.items()}, 3)), PEAKS)
    assert only(report, "rounding").lines == (3,)
    assert only(report, "zero-cells").lines == (4,)


def test_repeats_that_agree_are_a_fact_and_others_a_warning(tmp_path):
    lines = gemm(1978.9e12, 1286e12)
    same = only(audit(write(tmp_path / "a", GEMM, [*lines, lines[1]]), PEAKS), "repeats")
    assert same.severity == "info" and same.numbers == {"rows": 1, "spread": 0.0} and same.lines == (2, 5)
    cells = lines[1].split(",")
    slower = ",".join([*cells[:3], str(1.5 * float(cells[3])), cells[4]])
    other = only(audit(write(tmp_path / "b", GEMM, [*lines, slower]), PEAKS), "repeats")
    assert other.severity == "warning" and other.numbers["spread"] == pytest.approx(0.5)


def test_a_slow_first_row_is_a_warm_up(tmp_path):
    report = audit(write(tmp_path, DECODE, decode({**STEADY, (1, 1024): 39.0})), PEAKS)
    assert only(report, "warm-up").lines == (2,) and not report.of(code="not-monotone")
    assert not audit(write(tmp_path, DECODE, decode(STEADY)), PEAKS).of(code="warm-up")


def test_latency_that_falls_is_named_with_its_lines(tmp_path):
    slow = {**STEADY, (16, 1024): 1.05 * STEADY[16, 4096]}
    finding = only(audit(write(tmp_path, DECODE, decode(slow)), PEAKS), "not-monotone")
    assert finding.severity == "info" and "lines 5 and 6" in finding.text
    assert finding.numbers["worst"] == pytest.approx(1 - 1 / 1.05)
    outlier = {**STEADY, (16, 1024): 2.0 * STEADY[16, 4096]}
    assert only(audit(write(tmp_path, DECODE, decode(outlier)), PEAKS), "not-monotone").severity == "warning"
    within = {**STEADY, (16, 1024): 1.01 * STEADY[16, 4096]}
    assert not audit(write(tmp_path, DECODE, decode(within)), PEAKS).of(code="not-monotone")


def test_falls_are_seen_along_every_axis(tmp_path):
    slow = {**STEADY, (1, 16384): 1.5 * STEADY[16, 16384]}
    finding = only(audit(write(tmp_path, DECODE, decode(slow)), PEAKS), "not-monotone")
    assert "lines 4 and 7" in finding.text


def test_rows_beyond_the_roofline(tmp_path):
    fast = {at: us / 4 for at, us in STEADY.items()}
    finding = only(audit(write(tmp_path, DECODE, decode(fast)), PEAKS), "beyond-bandwidth")
    assert finding.severity == "warning" and finding.numbers["worst"] > 1.5
    assert not audit(write(tmp_path, DECODE, decode(STEADY)), PEAKS).of(code="beyond-bandwidth")
    report = audit(write(tmp_path / "other", GEMM, gemm(1978.9e12, 2100e12)), PEAKS)
    assert only(report, "beyond-roofline").severity == "error"


def test_a_row_that_contradicts_its_latency_is_named(tmp_path):
    lines = prefill(989.4e12)
    lines[3] = lines[3].rsplit(",", 1)[0] + ",0.5"
    finding = only(audit(write(tmp_path, PREFILL, lines), PEAKS), "unexplained-rows")
    assert finding.lines == (4,) and finding.numbers["rows"] == 1


def test_how_a_file_is_written(tmp_path):
    lines = gemm(1978.9e12, 1286e12)
    write(tmp_path, GEMM, [*lines[:0:-1], lines[1], lines[2].replace(",6144,", ",6144,1")])
    report = audit(tmp_path, PEAKS)
    assert only(report, "no-header").lines == (1,)
    assert only(report, "unsorted").severity == "info"
    repeats = only(report, "repeats")
    assert repeats.severity == "warning" and repeats.numbers["rows"] == 2 and set(repeats.lines) == {2, 3, 4, 5}
    assert only(report, "coverage").numbers == {"points": 3, "curves": 1, "product": 3, "holes": 0}


def test_coverage_counts_holes(tmp_path):
    report = audit(write(tmp_path, DECODE, decode({at: us for at, us in STEADY.items() if at != (16, 16384)})), PEAKS)
    assert only(report, "coverage").numbers == {"points": 5, "curves": 1, "product": 6, "holes": 1}


def test_grouped_gemms_are_judged_by_their_median(tmp_path):
    head = (
        "num_experts,num_gpus,num_local_experts,topk,hidden_size,intermediate_size,batch_size_per_gpu,"
        "tokens_per_expert,up_proj_us,up_mfu,down_proj_us,down_mfu"
    )
    rows = []
    for i, tokens in enumerate((16, 32, 64, 128, 256)):
        flops, wobble = 2 * tokens * 8 * 2048 * 1536, (1.2, 1.0, 0.9, 1.05, 0.97)[i]
        up, down = 2 * flops / 50e12 * 1e6, flops / 50e12 * 1e6
        mfu = f"{50 * wobble / 296:.4f}"
        rows.append(f"96,1,96,8,2048,1536,{tokens},1,{up:.3f},{mfu},{down:.3f},{mfu}")
    report = audit(write(tmp_path, "grouped_gemm/decode/h20/data.csv", [head, *rows]), PEAKS)
    assert ["fp8 of h20" in f.text for f in report.of(code="peak")] == [True, True]
    assert not report.of(severity="error")


def test_report_as_text_json_and_exit_code(tmp_path):
    write(tmp_path, PREFILL, prefill(148e12))
    write(tmp_path, "results/other.csv", ["a,b", "1,2"])
    with pytest.warns(MfuroofWarning):
        report = audit(str(tmp_path), PEAKS)
    plain = json.loads(report.to_json())
    assert plain["exit_code"] == 2 and plain["files"] == 1 and plain["rows"] == len(LENGTHS)
    assert plain["counts"]["error"] == 1 and len(plain["findings"]) == len(report.findings)
    assert {"severity", "code", "file", "text", "lines", "numbers"} == set(plain["findings"][0])
    assert "error    denominator" in report.text() and "coverage" not in report.text()
    assert "coverage" in report.text(info=True) and str(report) == report.text()
    assert only(report, "unread").file == "results/other.csv"
    assert report.findings[0].severity == "error"


def test_a_loaded_folder_is_judged_by_its_own_peaks(tmp_path):
    data = load_bench_data(write(tmp_path, PREFILL, prefill(148e12)), PEAKS)
    assert audit(data).exit_code == 2
    other = audit(data, {"h100": {"bf16": 148e12}})
    assert "bf16 of h100" in only(other, "peak").text
    assert only(other, "beyond-roofline").numbers["worst"] == pytest.approx(600 / 148, rel=1e-3)


def test_real_files(shared):
    """What is known of these files by hand: seventeen zero cells, seventeen warm-ups, and whose peaks they use."""
    catalogue = {**PEAKS, "h800_sxm": PEAKS["h100_sxm"]}
    blis = audit(shared / "bench_data" / "blis", catalogue)
    assert not blis.of(severity="error") and len(blis.of(code="peak")) == 25
    assert sum(f.numbers["rows"] for f in blis.of(code="zero-cells")) == 17
    assert len(blis.of(code="warm-up")) == 17
    assert max(f.numbers["worst"] for f in blis.of(code="rounding")) == pytest.approx(0.78, abs=0.01)
    low = max(f.numbers["peak_low_flops_per_s"] for f in blis.of(code="peak") if "prefill" in f.file)
    high = min(f.numbers["peak_high_flops_per_s"] for f in blis.of(code="peak") if "prefill" in f.file)
    assert 989.48e12 < low < 989.5e12 < high < 989.55e12
    infersim = audit(shared / "bench_data" / "infersim", catalogue)
    assert not infersim.of(severity="error")
    assert only(infersim, "no-header").file == "mha/decode/h20/64-2-128.csv"
    assert only(infersim, "repeats").numbers["rows"] == 22
    assert {f.file for f in infersim.of(code="unexplained-rows", severity="warning")} == {
        "gemm/h20/data.csv",
        "mha/decode/h20/32-4-128.csv",
    }
