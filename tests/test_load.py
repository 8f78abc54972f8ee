"""Reading benchmark folders: every layout, every kind of damage, and the MFU recomputed from latency."""

from __future__ import annotations

import math
from pathlib import Path

import naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof import lookup
from mfuroof.core.sources import Source
from mfuroof.errors import InputError, MfuroofWarning, MissingTableError, TableFormatError, UnknownNameError
from mfuroof.tables.compile import compile_1d
from mfuroof.tables.load import load_bench_data
from mfuroof.tables.work import file_flops, grouped_flops, key_flops

PEAKS = {"h20": {"bf16": 148e12, "fp8": 296e12, "hbm_bytes_per_s": 4e12}}
DECODE = "dtype,kv_dtype,batch_size,kv_len,latency_us,mfu"
GROUPED = (
    "num_experts,num_gpus,num_local_experts,topk,hidden_size,intermediate_size,batch_size_per_gpu,tokens_per_expert,"
    "up_proj_us,up_mfu,down_proj_us,down_mfu"
)
LAYOUT = {
    "gemm/h20/data.csv": "m,k,n,latency_us,mfu\n16,64,128,2.5,0.1\n32,64,128,3.5,0.2",
    "mha/prefill/h20/8-2-64.csv": "dtype,seq_len,latency_us,mfu\nbf16,1024,10.5,0.5",
    "mha/decode/h20/8-2-64-tp2.csv": f"{DECODE}\nbf16,bf16,1,1024,9.5,0.01\nbf16,fp8,1,1024,8.5,0.01",
    "mla/prefill/h800/128-128-64.csv": "dtype,seq_len,latency_us,mfu\nbf16,1024,116.880,0.372",
    "mla/decode/h800/128-512-64.csv": f"{DECODE}\nbf16,bf16,1,1024,20.91,0.014",
    "grouped_gemm/decode/h20/data.csv": f"{GROUPED}\n8,2,4,2,64,32,16,8,1.5,0.1,2.5,0.2",
    "grouped_gemm/prefill/h20/data.csv": (
        GROUPED.replace("batch_size", "seq_len") + "\n8,2,4,2,64,32,16,8,1.5,0.1,2.5,0.2"
    ),
    "gdn/prefill/h20/4-16-128-32-128.csv": "seq_len,conv,kkt,tril,wu,chunk_gdn,chunk_o\n4096,65,45,86,79,188,129",
    "gdn/decode/h20/4-16-128-32-128.csv": "batchsize,conv,gdn_update\n1,8,74\n16,9,71",
    "dsa/prefill/h800/attn-128-576-2048.csv": "dtype,s_q,s_kv,latency_us,mfu\nbf16,4096,4096,3687.923,0.641",
    "dsa/prefill/h800/logits-64-128.csv": "s_q,s_kv,latency_us,mfu\n2048,4096,101.011,0.516",
    "dsa/decode/h800/attn-128-576-2048.csv": f"{DECODE}\nbf16,fp8,64,1024,91.245,0.405",
    "dsa/decode/h800/logits-64-128.csv": "batchsize,next_n,s_kv,latency_us,mfu\n64,2,1024,9.685,0.112",
}


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


def test_every_family_and_gpu_is_found(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT), PEAKS)
    assert [f.path for f in data.files] == sorted(LAYOUT)
    assert data.gpus == ("h20", "h800")
    assert {(f.layout.family, f.layout.phase) for f in data.files} == {
        ("gemm", ""),
        *((family, phase) for family in ("mha", "mla", "grouped_gemm", "gdn") for phase in ("prefill", "decode")),
        *((family, phase) for family in ("dsa_attn", "dsa_logits") for phase in ("prefill", "decode")),
    }
    decode = data.select("H20", "mha", "decode")[0]
    assert (decode.key, decode.tp, decode.stem) == ((8, 2, 64), 2, "8-2-64-tp2")
    npt.assert_array_equal(decode.lines, [2, 3])
    assert decode.columns["kv_dtype"] == ("bf16", "fp8")
    assert decode.to_arrow().column("latency_us").to_pylist() == [9.5, 8.5]
    assert "h800: " in repr(data) and f"{len(LAYOUT)} files" in repr(data)


def test_a_bench_data_folder_inside_is_found(tmp_path):
    write(tmp_path / "bench_data", LAYOUT)
    assert load_bench_data(tmp_path).files[0].path == load_bench_data(str(tmp_path / "bench_data")).files[0].path


@pytest.mark.parametrize(
    "text",
    [
        "m,k,n,latency_us,mfu\n32,64,128,3.5,0.2\n16,64,128,2.5,0.1\n",
        "32,64,128,3.5,0.2\n16,64,128,2.5,0.1",  # no header
        "\ufeffm,k,n,latency_us,mfu\r\n32,64,128,3.5,0.2\r\n\r\n16,64,128,2.5,0.1\r\n",
        "mfu,n,k,latency,m\n0.2,128,64,3.5,32\n0.1,128,64,2.5,16",  # other order and name
        ' m , k,n,latency_us,mfu\n"32", 64,128.0, 3.5,0.2\n16,64,1.28e2,2.5,1e-1',
    ],
    ids=["unsorted", "headerless", "bom-crlf-blank", "by-name", "quoted-spaced"],
)
def test_spellings_of_one_file_read_alike(tmp_path, text):
    file = load_bench_data(write(tmp_path, {"gemm/h20/data.csv": text})).files[0]
    npt.assert_array_equal(file.columns["m"], [32, 16])
    npt.assert_array_equal(file.columns["n"], [128, 128])
    npt.assert_array_equal(file.columns["mfu"], [0.2, 0.1])
    npt.assert_allclose(file.latency_s(), [3.5e-6, 2.5e-6], rtol=1e-15)
    assert file.decimals["mfu"] == 1


def test_a_file_without_header_keeps_its_first_line(tmp_path):
    file = load_bench_data(write(tmp_path, {"mha/decode/h20/8-2-64.csv": "bf16,bf16,1,1024,9.5,0.01"})).files[0]
    assert not file.has_header and len(file) == 1 and file.lines[0] == 1


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,4.0,0.5\n1,2,3,4.0", ["line 3", "4 columns", "5"]),
        ("gemm/h20/data.csv", "1,2,3,4.0\n", ["line 1", "4 columns", "m, k, n, latency_us, mfu"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us\n1,2,3,4.0", ["line 1", "without mfu"]),
        ("gemm/h20/data.csv", "m,m,k,n,latency_us,mfu\n1,1,2,3,4.0,0.1", ["line 1", "a name twice"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,x,0.5", ["line 2, column latency_us", "'x'", "above 0"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,0,0.5", ["column latency_us", "'0'"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,nan,0.5", ["column latency_us", "'nan'"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,4,-0.5", ["column mfu", "at least 0"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1,2,3,4,inf", ["column mfu", "'inf'"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1.5,2,3,4,0.5", ["column m", "'1.5'", "whole number"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n0,2,3,4,0.5", ["column m", "[1, 2**40]"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1e30,2,3,4,0.5", ["column m", "2**40"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n1_0,2,3,4,0.5", ["column m", "'1_0'"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu\n,2,3,4,0.5", ["column m", "''"]),
        ("gemm/h20/data.csv", "m,k,n,latency_us,mfu", ["nothing below"]),
        ("gemm/h20/data.csv", "", ["an empty file"]),
        ("gemm/h20/data.csv", b"m,k,n\xff\xfe,latency_us,mfu\n", ["UTF-8"]),
        ("gemm/h20/data.csv", 'm,k,n,latency_us,mfu\n"1,2,3,4,0.5', ["no CSV"]),
        ("mha/prefill/h20/8-2-64.csv", "dtype,seq_len,latency_us,mfu\nbf17,1,2,0.1", ["column dtype", "'bf17'"]),
        ("mha/prefill/h20/8-2.csv", "dtype,seq_len,latency_us,mfu\nbf16,1,2,0.1", ["8-2.csv", "<head_dim>"]),
        ("mha/prefill/h20/8-0-64.csv", "dtype,seq_len,latency_us,mfu\nbf16,1,2,0.1", ["8-0-64.csv"]),
        ("mha/prefil/h20/8-2-64.csv", "dtype,seq_len,latency_us,mfu\nbf16,1,2,0.1", ["mha/{prefill,decode}/<gpu>"]),
        ("gemm/data.csv", "m,k,n,latency_us,mfu\n1,2,3,4,0.5", ["gemm/<gpu>"]),
        ("gemm/h20/other.csv", "m,k,n,latency_us,mfu\n1,2,3,4,0.5", ["data.csv"]),
        ("dsa/decode/h800/index-64-128.csv", "batchsize,next_n,s_kv,latency_us,mfu\n64,2,1024,9.685,0.112", ["attn-"]),
    ],
)
def test_damage_names_file_place_found_and_expected(tmp_path, name, text, expected):
    with pytest.raises(TableFormatError) as caught:
        load_bench_data(write(tmp_path, {name: text}))
    assert name in str(caught.value)
    for part in expected:
        assert part in str(caught.value)


def test_all_damage_of_a_folder_is_reported_at_once(tmp_path):
    bad = "m,k,n,latency_us,mfu\n" + "x,2,3,4,0.5\n" * 30
    with pytest.raises(TableFormatError) as caught:
        load_bench_data(write(tmp_path, {**LAYOUT, "gemm/a/data.csv": bad, "gemm/b/data.csv": "1,2\n"}))
    text = str(caught.value)
    assert "gemm/a/data.csv, line 6" in text and "25 problems more" in text and "gemm/b/data.csv" in text


def test_foreign_files_and_columns_are_named_not_dropped(tmp_path):
    extra = "m,k,n,latency_us,mfu,clock_mhz\n16,64,128,2.5,0.1,1980"
    write(tmp_path, {"gemm/h20/data.csv": extra, "results/summary.csv": "a,b\n1,2", "README.md": "hello"})
    with pytest.warns(MfuroofWarning, match=r"clock_mhz.*summary\.csv"):
        data = load_bench_data(tmp_path)
    assert data.unread == ("results/summary.csv",)


@pytest.mark.parametrize("folder", ["/nowhere/at/all", None, 7, "bad\0name"])
def test_no_folder(folder):
    with pytest.raises(InputError, match="folder"):
        load_bench_data(folder)


def test_empty_and_unreadable(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no benchmark file"):
        load_bench_data(tmp_path)
    write(tmp_path, {"gemm/h20/data.csv": "m,k,n,latency_us,mfu\n1,2,3,4,0.5"})

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(TableFormatError, match=r"gemm/h20/data.csv.*cannot be read.*Permission denied"):
        load_bench_data(tmp_path)


# --- the MFU that latency implies ----------------------------------------------------------------------------------

decode_points = st.dictionaries(
    st.tuples(st.sampled_from([1, 2, 8]), st.sampled_from([16, 64, 100, 256])),
    st.integers(10, 10**6).map(lambda t: t / 1000),
    min_size=1,
    max_size=9,
)


@settings(max_examples=40)
@given(decode_points, st.sampled_from(sorted(lookup.RULES)))
def test_generic_rules_read_the_recomputed_mfu(tmp_path_factory, points, rule):
    """The printed MFU plays no part; "linear" blends latency, the others MFU; the edge's MFU holds beyond it."""
    lines = [DECODE, *(f"bf16,bf16,{b},{kv},{t},0.777" for (b, kv), t in points.items())]
    root = write(tmp_path_factory.mktemp("bench"), {"mha/decode/h20/8-2-64.csv": "\n".join(lines)})
    data = load_bench_data(root, PEAKS)

    def flops(batch, kv):
        return 4 * 8 * 64 * batch * kv

    batch, kv = (a.ravel() for a in np.meshgrid([1, 2, 3, 8, 20], [8, 16, 50, 100, 256, 999], indexing="ij"))
    found = data.attn_decode_mfu("h20", 8, 2, 64, batch, kv, rule=rule, details=True)
    seconds = {at: t * 1e-6 for at, t in points.items()}
    mfu = {at: flops(*at) / (t * 148e12) for at, t in seconds.items()}
    for i, shape in enumerate(zip(batch.tolist(), kv.tolist(), strict=True)):
        if rule == "linear":
            edge = naive.edge(points, rule, *shape)
            value, source, *_ = naive.grid(seconds, rule, "clamp", "clamp", *shape)
            value = flops(*edge) / (value * 148e12)
        else:
            value, source, *_ = naive.grid(mfu, rule, "clamp", "clamp", *shape)
        npt.assert_allclose(found.values[i], value, rtol=1e-12)
        assert found.source[i] == naive.CODES[source]
    npt.assert_array_equal(data.attn_decode_mfu("h20", 8, 2, 64, batch, kv, rule=rule), found.values)


def test_gemm_lends_utilisation_from_the_covering_weight(tmp_path):
    text = "m,k,n,latency_us,mfu\n16,64,128,2.0,0\n32,64,128,3.0,0\n16,128,256,4.0,0"
    data = load_bench_data(write(tmp_path, {"gemm/h20/data.csv": text}), PEAKS)
    npt.assert_allclose(data.gemm_mfu("h20", 16, 64, 128), 2 * 16 * 64 * 128 / (2e-6 * 296e12))
    npt.assert_allclose(data.gemm_mfu("h20", 24, 60, 100), 2 * 24 * 64 * 128 / (2.5e-6 * 296e12))
    npt.assert_allclose(data.gemm_mfu("h20", 24, 60, 100, rule="floor"), 2 * 16 * 64 * 128 / (2e-6 * 296e12))
    found = data.gemm_mfu("h20", [16, 24, 24, 99], [64, 60, 999, 64], [128, 100, 999, 128], details=True)
    npt.assert_array_equal(found.source, [Source.EXACT, Source.SUBSTITUTED, Source.SUBSTITUTED, Source.CLAMPED])
    npt.assert_allclose(data.gemm_mfu("h20", 16, 64, 128, peak_dtype="bf16"), 2 * data.gemm_mfu("h20", 16, 64, 128))
    assert math.isnan(data.gemm_mfu("h20", 16, 999, 999, outside="nan"))
    with pytest.raises(InputError, match="2 sites up to k = 128"):
        data.gemm_mfu("h20", 16, 999, 999, outside="raise")


def test_hold_keeps_the_utilisation_of_the_roofline(tmp_path):
    """Below the grid a weight-bound GEMM takes as long as at its edge, so the MFU falls in proportion to m."""
    rows = "16,4096,4096,10.0,0.1\n64,4096,4096,12.0,0.3"
    data = load_bench_data(write(tmp_path, {"gemm/h20/data.csv": rows}), PEAKS)
    edge = data.gemm_mfu("h20", 16, 4096, 4096)
    below = data.gemm_mfu("h20", 1, 4096, 4096, outside="hold", details=True)
    moved = 4096 * 4096 + np.array([16, 1]) * (4096 + 2 * 4096)
    npt.assert_allclose(below.values, edge / 16 * moved[0] / moved[1])
    assert below.source == Source.EXTRAPOLATED
    unknown = load_bench_data(data.folder, {"h20": {"fp8": 296e12}})
    with pytest.raises(InputError, match="hbm_bytes_per_s"):
        unknown.gemm_mfu("h20", 1, 4096, 4096, outside="hold")
    assert unknown.gemm_mfu("h20", 16, 4096, 4096, outside="hold") == pytest.approx(edge)


def test_prefill_and_latent_attention_count_the_causal_half(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT), {**PEAKS, "h800": {"bf16": 989e12, "fp8": 1979e12}})
    assert data.attn_prefill_mfu("h20", 8, 2, 64, 1024) == pytest.approx(2 * 8 * 64 * 1024**2 / (10.5e-6 * 148e12))
    assert data.mla_prefill_mfu("h800", 128, 128, 64, 1024) == pytest.approx(0.372, abs=5e-4)
    assert data.mla_decode_mfu("h800", 256, 512, 64, 1, 1024, tp=2) == pytest.approx(0.014, abs=5e-4)


def test_flops_of_every_family_by_hand():
    """Small enough to count: pairs of queries and keys times two multiply-adds, or the three sides of a GEMM."""
    count = {
        ("gemm", "", ()): ({"m": 2, "k": 3, "n": 5}, 2 * 2 * 3 * 5),
        ("mha", "prefill", (4, 2, 8)): ({"seq_len": 6}, 2 * 4 * (8 + 8) * 36 / 2),
        ("mha", "decode", (4, 2, 8)): ({"batch_size": 3, "kv_len": 7}, 2 * 4 * (8 + 8) * 3 * 7),
        ("mla", "prefill", (4, 8, 2)): ({"seq_len": 6}, 2 * 4 * (8 + 2 + 8) * 36 / 2),
        ("mla", "decode", (4, 16, 2)): ({"batch_size": 3, "kv_len": 7}, 2 * 4 * (16 + 2 + 16) * 3 * 7),
        ("dsa_attn", "prefill", (4, 96, 10)): ({"s_q": 3, "s_kv": 99}, 2 * 4 * (96 + 32) * 10 * 3),
        ("dsa_logits", "prefill", (4, 8)): ({"s_q": 2, "s_kv": 5}, 2 * (4 + 5) * 4 * 8),
        ("dsa_logits", "decode", (4, 8)): ({"batch_size": 2, "next_n": 2, "s_kv": 5}, 2 * 2 * 2 * 5 * 4 * 8),
    }
    for (family, phase, key), (shape, flops) in count.items():
        assert key_flops(family, phase, key, shape) == flops, family
    shape = {"num_experts_per_tok": 2, "hidden_size": 3, "intermediate_size": 5}
    assert grouped_flops("up", shape, 7) == 2 * 7 * 2 * 3 * 2 * 5
    assert grouped_flops("down", shape, 7) == 2 * 7 * 2 * 3 * 5


def test_rank_heads_with_and_without_tp_suffix(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT), PEAKS)
    rank = 4 * 4 * 64 * 1024 / (9.5e-6 * 148e12)  # 8 heads on two ranks
    assert data.attn_decode_mfu("h20", 8, 2, 64, 1, 1024, tp=2) == pytest.approx(rank)
    assert data.attn_decode_mfu("h20", 4, 1, 64, 1, 1024) == pytest.approx(rank)
    fp8 = data.attn_decode_mfu("h20", 8, 2, 64, 1, 1024, tp=2, kv_dtype="fp8_e4m3")
    assert fp8 == pytest.approx(rank * 9.5 / 8.5)
    with pytest.raises(MissingTableError, match="8-2-64 at tp 1"):
        data.attn_decode_mfu("h20", 8, 2, 64, 1, 1024)
    near = data.attn_decode_mfu("h20", [4, 6], [1, 2], 64, 1, 1024, missing="nearest", details=True)
    npt.assert_allclose(near.values, rank)
    npt.assert_array_equal(near.source, [Source.EXACT, Source.SUBSTITUTED])
    npt.assert_allclose(near.distance, [0, 1])
    none = data.attn_decode_mfu("h20", [4, 6], [1, 2], 64, 1, 1024, missing="nan", details=True)
    assert math.isnan(none.values[1]) and none.source[1] == Source.MISSING and none.values[0] == near.values[0]


def test_grouped_gemm_by_projection(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT), PEAKS)
    up, down = data.grouped_gemm_mfu("h20", "decode", 8, 2, 64, 32, [16, 32], num_gpus=2)
    assert up[0] == pytest.approx(2 * 16 * 2 * 64 * 2 * 32 / (1.5e-6 * 296e12))
    assert down[0] == pytest.approx(2 * 16 * 2 * 32 * 64 / (2.5e-6 * 296e12))
    assert up[1] == up[0]
    with pytest.raises(MissingTableError, match="8-2-4-2-64-32"):
        data.grouped_gemm_mfu("h20", "decode", 16, 2, 64, 32, 16, num_gpus=2)
    nothing = data.grouped_gemm_mfu("h20", "decode", 16, 2, 64, 32, [16], num_gpus=2, missing="nan", details=True)
    assert np.isnan(nothing.values).all() and nothing.values.shape == (2, 1)
    with pytest.raises(InputError, match="traffic"):
        data.grouped_gemm_mfu("h20", "decode", 8, 2, 64, 32, 99, num_gpus=2, outside="hold")


def test_gated_delta_net_scales_beyond_its_rows(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT))
    found = data.gdn_latency_s("h20", "decode", (4, 16, 128, 32, 128), [1, 16, 32], details=True)
    npt.assert_allclose(found.values, [82e-6, 80e-6, 160e-6])
    npt.assert_array_equal(found.source, [Source.EXACT, Source.EXACT, Source.EXTRAPOLATED])
    with pytest.raises(MissingTableError, match="4-16-128-8-128"):
        data.gdn_latency_s("h20", "decode", (4, 16, 128, 8, 128), 1)


def test_repeated_rows_are_merged_into_their_median(tmp_path):
    rows = "16,64,128,2.0,0\n16,64,128,9.0,0\n16,64,128,3.0,0"
    data = load_bench_data(write(tmp_path, {"gemm/h20/data.csv": rows}), PEAKS)
    assert len(data.files[0]) == 3
    assert data.gemm_mfu("h20", 16, 64, 128) == pytest.approx(2 * 16 * 64 * 128 / (3e-6 * 296e12))


def test_peaks_come_from_the_catalogue_or_from_the_files(tmp_path):
    rows = [f"{m},4096,4096,{t},{2 * m * 4096**2 / (t * 1e-6) / 296e12:.6f}" for m, t in [(16, 10.5), (512, 77.1)]]
    write(tmp_path, {"gemm/h20/data.csv": "\n".join(rows), "gemm/l4/data.csv": "16,64,128,9.0,0.1"})
    assert load_bench_data(tmp_path, {"h20_sxm": {"fp8": 1e15}}).peak("H20", "fp8") == 1e15
    data = load_bench_data(tmp_path)
    assert data.peak("h20", "fp8") == pytest.approx(296e12, rel=1e-4)
    with pytest.warns(MfuroofWarning, match="imply a fp8 peak of l4"):
        data.peak("l4", "fp8")
    with pytest.raises(InputError, match="peaks"):
        data.peak("h20", "bf16")


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda d: d.gemm_mfu("h200", 1, 1, 1), UnknownNameError, "h20"),
        (lambda d: d.gemm_mfu("h20", 1, 1, 1, rule="liner"), UnknownNameError, "linear"),
        (lambda d: d.gemm_mfu("h20", 1, 1, 1, outside="hld"), UnknownNameError, "hold"),
        (lambda d: d.gemm_mfu("h20", 1, 1, 1, detail=True), UnknownNameError, "details"),
        (lambda d: d.gemm_mfu("h20", -1, 1.5, "x"), InputError, r"m\[0\](.|\n)*k\[0\](.|\n)*n: "),
        (lambda d: d.gemm_mfu("h20", [1, 2], [1, 2, 3], 1), InputError, "broadcast"),
        (lambda d: d.gemm_mfu("h20", 1, 1, math.nan), InputError, "n"),
        (lambda d: d.gemm_mfu("h20", 1, 1, 1, default_mfu=-1), InputError, "default_mfu"),
        (lambda d: d.gemm_mfu("h20", 1, 1, 1, peak_dtype="fp88"), UnknownNameError, "fp8"),
        (lambda d: d.attn_decode_mfu("h20", 8, 2, 64, 1, 1, tp=0), InputError, "tp"),
        (lambda d: d.attn_decode_mfu("h20", 8, 2, 64, 1, 1, tp=3), InputError, "divisor of the 8 heads"),
        (lambda d: d.attn_decode_mfu("h20", 8, 2, 64, 1, 1, missing="guess"), UnknownNameError, "nearest"),
        (lambda d: d.attn_decode_mfu("h20", 8, 2, 64, 1, 1, kv_dtype="fp5"), UnknownNameError, "fp8"),
        (lambda d: d.grouped_gemm_mfu("h20", "decoding", 8, 2, 64, 32, 1), UnknownNameError, "decode"),
        (lambda d: d.grouped_gemm_mfu("h20", "decode", 8.5, 2, 64, 32, 1), InputError, "num_experts"),
        (lambda d: d.gdn_latency_s("h20", "decode", (4, 16, 128, 32, 128), 0), InputError, "tokens"),
        (lambda d: d.gdn_latency_s("h800", "decode", (4, 16, 128, 32, 128), 1), MissingTableError, "h800"),
        (lambda d: d.gemm_mfu("h800", 1, 1, 1), MissingTableError, "GEMM"),
    ],
)
def test_bad_queries_say_what_is_wrong(tmp_path, call, error, text):
    data = load_bench_data(write(tmp_path, LAYOUT), {**PEAKS, "h800": PEAKS["h20"]})
    with pytest.raises(error, match=text):
        call(data)


def test_empty_queries_and_shapes(tmp_path):
    data = load_bench_data(write(tmp_path, LAYOUT), PEAKS)
    assert data.gemm_mfu("h20", [], 64, 128).shape == (0,)
    assert data.attn_decode_mfu("h20", 4, 1, 64, np.ones((2, 1), int), np.full((1, 3), 1024)).shape == (2, 3)
    assert np.ndim(data.gemm_mfu("h20", 16, 64, 128)) == 0


def test_real_files_recompute_to_what_they_print(shared):
    """Every printed MFU of the exact families agrees with the recomputed one within its rounding and 0.1 %."""
    for name, gpu, bf16, fp8 in [("blis", "h100", 989.4e12, 1978.9e12), ("infersim", "h20", 148e12, 296e12)]:
        data = load_bench_data(shared / "bench_data" / name, {gpu: {"bf16": bf16, "fp8": fp8}})
        for file in data.select(gpu, "mha", "decode"):
            bf16_rows = file.select(kv_dtype="bf16")
            batch, kv, printed = (file.columns[c][bf16_rows] for c in ("batch_size", "kv_len", "mfu"))
            found = data.attn_decode_mfu(gpu, *file.key, batch, kv, tp=file.tp or 1, details=True)
            assert not found.source.any()
            off = np.abs(found.values - printed) > 0.5 * 10.0 ** -file.decimals["mfu"] + 1e-3 * printed
            assert off.sum() <= (file.path == "mha/decode/h20/32-4-128.csv")  # one row there contradicts its latency


def leave_one_out(file, x_name, keep, rule):
    """Median relative error of the time at each inner point of a curve, predicted from the others."""
    x, time = file.count(x_name)[keep], file.latency_s()[keep]
    flops = file_flops(file)["mfu"][keep]
    errors = []
    for i in np.argsort(x)[1:-1]:
        others = np.arange(x.size) != i
        if rule == "linear":
            predicted = lookup.linear(compile_1d(x_name, x[others], time[others]), x[i])
        else:
            predicted = flops[i] / lookup.read(compile_1d(x_name, x[others], (flops / time)[others]), x[i], rule=rule)
        errors.append(abs(predicted / time[i] - 1))
    return errors


def test_default_rules_win_leave_one_out(shared):
    """GEMM over tokens: latency, linearly. Prefill: log-log. Floor and nearest are several times worse."""
    data = load_bench_data(shared / "bench_data" / "infersim")
    gemm, errors = data.select("h20", "gemm")[0], {}
    weights = np.unique(np.column_stack([gemm.columns["k"], gemm.columns["n"]]), axis=0)
    sites = [(gemm.columns["k"] == k) & (gemm.columns["n"] == n) for k, n in weights]
    for rule in ("floor", "nearest_l1", "loglog", "linear"):
        errors[rule] = np.median(np.concatenate([leave_one_out(gemm, "m", site, rule) for site in sites]))
    assert errors["linear"] < errors["loglog"] < errors["floor"] / 3 and errors["linear"] < 0.02
    prefill = data.select("h20", "mha", "prefill")
    of = {r: np.median([leave_one_out(f, "seq_len", slice(None), r) for f in prefill]) for r in errors}
    assert of["loglog"] < of["linear"] / 4 and of["loglog"] < of["floor"]
