"""Peers' lookup rules against plain-Python definitions: equal to the last bit, on made-up and on real files."""

from __future__ import annotations

import random

import naive_peers as naive
import numpy as np
import numpy.testing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof.core import scan
from mfuroof.core.sources import Source
from mfuroof.errors import MissingTableError, UnknownNameError
from mfuroof.tables.load import load_bench_data

BLIS = ("blis_floor", "blis_v2")
MFUS = st.sampled_from(["0.0", "0.00005", "0.0001", "0.0005", "0.001", "0.0345", "0.4995", "0.12", "0.7", "1.019"])
SMALL = st.integers(1, 9)


def write(root, files):
    for name, lines in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n")
    return root


def folder(tmp_path_factory, **files):
    return write(tmp_path_factory.mktemp("bench"), files)


def prefill_lines(rows):
    return ["dtype,seq_len,latency_us,mfu", *(f"bf16,{s},1.5,{u}" for s, u in rows)]


def decode_lines(rows):
    return ["dtype,kv_dtype,batch_size,kv_len,latency_us,mfu", *(f"bf16,{d},{b},{s},1.5,{u}" for d, b, s, u in rows)]


def gemm_lines(rows):
    return ["m,k,n,latency_us,mfu", *(f"{m},{k},{n},1.5,{u}" for m, k, n, u in rows)]


prefill_rows = st.lists(st.tuples(SMALL, MFUS), min_size=1, max_size=8)
decode_rows = st.lists(st.tuples(st.sampled_from(["bf16", "bf16", "fp8"]), SMALL, SMALL, MFUS), min_size=1, max_size=12)
gemm_rows = st.lists(st.tuples(SMALL, SMALL, SMALL, MFUS), min_size=1, max_size=12)


def product(*axes):
    return [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]


def check(read, expected, *queries):
    """Compare one vectorised call with the definition, query by query; None means the program gives up."""
    want = [expected(*(int(x) for x in q)) for q in zip(*queries, strict=True)]
    if any(w is None for w in want):
        with pytest.raises(MissingTableError):
            read(*queries)
        return
    npt.assert_array_equal(read(*queries), want)
    described = read(*queries, details=True)
    npt.assert_array_equal(described.values, want)
    exact = described.source == Source.EXACT
    assert (described.distance[exact] == 0).all() and np.isin(described.source, [0, 1, 2, 4]).all()


@settings(max_examples=40)
@given(prefill_rows, decode_rows, gemm_rows)
def test_infersim_rules(tmp_path_factory, prefill, decode, gemm):
    root = folder(
        tmp_path_factory,
        **{
            "mha/prefill/h20/8-2-64.csv": prefill_lines(prefill),
            "mha/decode/h20/8-2-64.csv": decode_lines(decode),
            "gemm/h20/data.csv": gemm_lines(gemm),
        },
    )
    data = load_bench_data(root)
    lengths = np.arange(0, 12)
    rows = naive.body(root / "mha/prefill/h20/8-2-64.csv")
    check(
        lambda s, **o: data.attn_prefill_mfu("H20", 16, 4, 64, s, tp=2, rule="infersim", **o),
        lambda s: naive.infersim_prefill(rows, 0.6, s),
        lengths,
    )
    decode_body = naive.body(root / "mha/decode/h20/8-2-64.csv")
    for kv_dtype in ("bf16", "fp8"):
        if any(r[1] == kv_dtype for r in decode_body):
            check(
                lambda b, s, d=kv_dtype, **o: data.attn_decode_mfu("h20", 8, 2, 64, b, s, 1, d, "infersim", **o),
                lambda b, s, d=kv_dtype: naive.infersim_decode(decode_body, d, b, s),
                *product(lengths, lengths),
            )
        else:
            with pytest.raises(MissingTableError, match=kv_dtype):
                data.attn_decode_mfu("h20", 8, 2, 64, 1, 1, kv_dtype=kv_dtype, rule="infersim")
    gemm_body = naive.body(root / "gemm/h20/data.csv")
    check(
        lambda m, k, n, **o: data.gemm_mfu("h20", m, k, n, rule="infersim", **o),
        lambda m, k, n: naive.infersim_gemm(gemm_body, 0.6, m, k, n),
        *product(np.arange(0, 11), np.arange(0, 11, 2), np.arange(1, 11, 2)),
    )


@settings(max_examples=40)
@given(prefill_rows, decode_rows, gemm_rows)
def test_blis_rules(tmp_path_factory, prefill, decode, gemm):
    root = folder(
        tmp_path_factory,
        **{
            "mha/prefill/h100/8-2-64.csv": prefill_lines(prefill),
            "mha/decode/h100/8-2-64-tp1.csv": decode_lines(decode),
            "gemm/h100/data.csv": gemm_lines(gemm),
        },
    )
    data = load_bench_data(root)
    lengths = np.arange(0, 12)
    prefill_points = [((s,), float(u)) for s, u in prefill]
    decode_points = [((b, s), float(u)) for _, b, s, u in decode]
    gemm_points = [(m, k, n, float(u)) for m, k, n, u in gemm]
    for rule in BLIS:
        v2 = rule == "blis_v2"
        check(
            lambda s, r=rule, **o: data.attn_prefill_mfu("h100", 8, 2, 64, s, rule=r, **o),
            lambda s, v2=v2: (
                naive.blis_v2_prefill(prefill_points, s) if v2 else naive.blis_floor_attention(prefill_points, (s,))
            ),
            lengths,
        )
        check(
            lambda b, s, r=rule, **o: data.attn_decode_mfu("h100", 8, 2, 64, b, s, tp=1, rule=r, **o),
            lambda b, s, v2=v2: (
                naive.blis_v2_decode(decode_points, b, s)
                if v2
                else naive.blis_floor_attention(decode_points, (b, s))
            ),
            *product(lengths, lengths),
        )
        check(
            lambda m, k, n, r=rule, **o: data.gemm_mfu("h100", m, k, n, rule=r, **o),
            lambda m, k, n, r=rule: naive.blis_gemm(r, gemm_points, m, k, n),
            *product(np.arange(0, 11), np.arange(0, 11, 2), np.arange(1, 11, 2)),
        )


GROUPED = (
    "num_experts,num_gpus,num_local_experts,topk,hidden_size,intermediate_size,{},tokens_per_expert,"
    "up_proj_us,up_mfu,down_proj_us,down_mfu"
)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from([2, 4]), SMALL, MFUS, MFUS), min_size=1, max_size=10))
def test_infersim_grouped_gemm(tmp_path_factory, rows):
    lines = [f"8,{g},{8 // g},2,64,32,{t},1,1.5,{u},1.5,{d}" for g, t, u, d in rows]
    root = folder(
        tmp_path_factory,
        **{
            "grouped_gemm/decode/h20/data.csv": [GROUPED.format("batch_size_per_gpu"), *lines],
            "grouped_gemm/prefill/h20/data.csv": [GROUPED.format("seq_len_per_gpu"), *lines],
        },
    )
    data = load_bench_data(root)
    tokens = np.arange(0, 12)
    for phase in ("decode", "prefill"):
        body = naive.body(root / f"grouped_gemm/{phase}/h20/data.csv")
        for gpus in (2, 4):
            key = (8, gpus, 8 // gpus, 2, 64, 32)
            want = [naive.infersim_grouped(body, phase, key, 0.6, int(t)) for t in tokens]
            found = data.grouped_gemm_mfu("h20", phase, 8, 2, 64, 32, tokens, num_gpus=gpus, rule="infersim")
            npt.assert_array_equal(found, np.transpose(want))
            described = data.grouped_gemm_mfu(
                "h20", phase, 8, 2, 64, 32, tokens, num_gpus=gpus, rule="infersim", details=True
            )
            npt.assert_array_equal(described.values, found)
    # tp halves the ranks' experts and widths: 4 GPUs of tp 2 hold 4 of 8 experts, which is not a row
    found = data.grouped_gemm_mfu("h20", "decode", 8, 2, 64, 64, tokens, num_gpus=4, tp=2, rule="infersim")
    assert (found == 0.6).all()


def test_infersim_gated_delta_net(tmp_path):
    write(tmp_path, {"gdn/decode/h20/4-2-8-4-8.csv": ["batchsize,conv,gdn_update", "1,8,74", "64,18,129", "16,9,71"]})
    data = load_bench_data(tmp_path)
    body = naive.body(tmp_path / "gdn/decode/h20/4-2-8-4-8.csv")
    batch = np.arange(1, 100)
    found = data.gdn_latency_s("h20", "decode", (4, 2, 8, 4, 8), batch, rule="infersim")
    npt.assert_array_equal(found, [naive.infersim_gdn_us(body, int(b)) * 1e-6 for b in batch])


def test_infersim_loses_the_first_row_of_a_file_without_header(tmp_path):
    lines = ["bf16,bf16,1,1024,25.4893,0.009", "bf16,bf16,1,4096,84.6816,0.011"]
    write(tmp_path, {"mha/decode/h20/64-2-128.csv": lines})
    data = load_bench_data(tmp_path, peaks={"h20": {"bf16": 148e12}})
    assert len(data.files[0]) == 2
    assert data.attn_decode_mfu("h20", 64, 2, 128, 1, 1024, rule="infersim") == 0.011
    assert data.attn_decode_mfu("h20", 64, 2, 128, 1, 1024, rule="floor") == pytest.approx(0.0089, rel=0.01)


def test_infersim_does_not_reach_a_weight_too_far(tmp_path):
    """A covering weight counts below a squared distance of 1e9: 10000^2 + 30000^2 is just too far."""
    write(tmp_path, {"gemm/h20/data.csv": gemm_lines([(1, 40000, 40000, "0.5"), (1, 90000, 90000, "0.4")])})
    data = load_bench_data(tmp_path)
    rows = naive.body(tmp_path / "gemm/h20/data.csv")
    shapes = [(1, 30000, 10000), (1, 30001, 10000), (1, 1, 1), (1, 60000, 60000), (1, 85000, 85000)]
    want = [naive.infersim_gemm(rows, 0.6, *shape) for shape in shapes]
    assert want == [0.6, 0.5, 0.6, 0.6, 0.4]
    npt.assert_array_equal(data.gemm_mfu("h20", *np.transpose(shapes), rule="infersim"), want)


def test_infersim_defaults(tmp_path):
    write(tmp_path, {"mha/decode/h800/8-2-64.csv": decode_lines([("bf16", 1, 1, "0.5")])})
    write(tmp_path, {"mha/decode/l4/8-2-64.csv": decode_lines([("bf16", 1, 1, "0.5")])})
    data = load_bench_data(tmp_path)
    missing = data.attn_decode_mfu("h800", 9, 2, 64, [1, 2], 1, rule="infersim", details=True)
    npt.assert_array_equal(missing.values, [0.35, 0.35])
    npt.assert_array_equal(missing.source, [Source.SUBSTITUTED] * 2)
    assert np.isinf(missing.distance).all()
    assert data.attn_prefill_mfu("h800", 8, 2, 64, 1, rule="infersim") == 0.9
    assert data.gemm_mfu("h800", 1, 1, 1, rule="infersim") == 0.35
    assert data.gemm_mfu("l4", 1, 1, 1, rule="infersim", default_mfu=0.2) == 0.2
    with pytest.raises(MissingTableError, match="default_mfu"):
        data.gemm_mfu("l4", 1, 1, 1, rule="infersim")


def test_blis_configuration_and_tp(tmp_path):
    """Qwen3-30B-A3B reads as 32-4-64, and 28-4-128 ties with 32-8-128: the first by name is taken."""
    rows = {"28-4-128": "0.28", "32-8-128": "0.32", "32-32-128": "0.33"}
    for stem, u in rows.items():
        write(tmp_path, {f"mha/prefill/h100/{stem}.csv": prefill_lines([(1, u)])})
    for tp in (1, 2, 8):
        write(tmp_path, {f"mha/decode/h100/28-4-128-tp{tp}.csv": decode_lines([("bf16", 1, 1, f"0.0{tp}")])})
    data = load_bench_data(tmp_path)
    stems = [f.stem for f in data.select("h100", "mha", "prefill")]
    for heads, kv, dim in [(32, 4, 64), (32, 8, 128), (40, 40, 128), (1, 1, 1), (30, 6, 128), (32, 20, 128)]:
        stem = naive.blis_configuration(stems, heads, kv, dim)
        for rule in BLIS:
            assert data.attn_prefill_mfu("h100", heads, kv, dim, 1, rule=rule) == float(rows[stem])
    for tp in range(1, 12):
        for rule in BLIS:
            want = float(f"0.0{naive.blis_tp({1, 2, 8}, tp, rule)}")
            found = data.attn_decode_mfu("h100", 32, 4, 64, 1, 1, tp=tp, rule=rule, details=True)
            assert found.values == want and found.source == Source.SUBSTITUTED
    with pytest.raises(MissingTableError, match="32-8-128-tp4"):
        data.attn_decode_mfu("h100", 32, 8, 128, 1, 1, tp=4, rule="blis_floor")
    assert data.attn_decode_mfu("h100", 32, 8, 128, 1, 1, tp=4, rule="blis_v2") == 0.0001


def test_many_configurations_in_one_call(tmp_path):
    for heads in (8, 16):
        write(tmp_path, {f"mha/decode/h20/{heads}-2-64.csv": decode_lines([("bf16", 1, 1, f"0.{heads}")])})
    data = load_bench_data(tmp_path)
    found = data.attn_decode_mfu("h20", [[8], [16]], 2, 64, [1, 2, 3], 1, rule="infersim", details=True)
    npt.assert_array_equal(found.values, [[0.8] * 3, [0.16] * 3])
    assert found.source.shape == found.distance.shape == (2, 3)


def test_peer_rules_stay_with_their_families(tmp_path):
    write(tmp_path, {"mla/decode/h20/128-512-64.csv": decode_lines([("bf16", 1, 1, "0.5")])})
    data = load_bench_data(tmp_path)
    assert data.mla_decode_mfu("h20", 256, 512, 64, 1, 1, tp=2, rule="infersim") == 0.5
    with pytest.raises(UnknownNameError):
        data.mla_decode_mfu("h20", 128, 512, 64, 1, 1, rule="blis_v2")


def around(values, rng, high):
    """On the grid, beside it, between and far outside."""
    grid = sorted({int(v) for v in values})
    beside = [v + d for v in grid for d in (-1, 1)]
    return np.array([*grid, *beside, *(rng.randrange(0, high) for _ in range(60)), 0, 10 * high])


def pairs_of(a, b, rng, size):
    return np.array([rng.choice(a) for _ in range(size)]), np.array([rng.choice(b) for _ in range(size)])


def test_blis_rules_on_its_own_files(shared):
    root = shared / "bench_data" / "blis"
    data, rng = load_bench_data(root), random.Random(5)
    for path in sorted((root / "mha" / "decode" / "h100").iterdir()):
        points = [((int(r[2]), int(r[3])), float(r[5])) for r in naive.body(path)]
        *key, tp = (int(x) for x in path.stem.replace("-tp", "-").split("-"))
        batch, kv = pairs_of(
            around([p[0][0] for p in points], rng, 600), around([p[0][1] for p in points], rng, 140_000), rng, 150
        )
        shapes = list(zip(batch.tolist(), kv.tolist(), strict=True))
        found = data.attn_decode_mfu("h100", *key, batch, kv, tp=tp, rule="blis_floor")
        npt.assert_array_equal(found, [naive.blis_floor_attention(points, q) for q in shapes])
        found = data.attn_decode_mfu("h100", *key, batch, kv, tp=tp, rule="blis_v2")
        npt.assert_array_equal(found, [naive.blis_v2_decode(points, *q) for q in shapes])
    for path in sorted((root / "mha" / "prefill" / "h100").iterdir()):
        points = [((int(r[1]),), float(r[3])) for r in naive.body(path)]
        key, lengths = [int(x) for x in path.stem.split("-")], around([p[0][0] for p in points], rng, 40_000)
        found = data.attn_prefill_mfu("h100", *key, lengths, rule="blis_floor")
        npt.assert_array_equal(found, [naive.blis_floor_attention(points, (q,)) for q in lengths.tolist()])
        found = data.attn_prefill_mfu("h100", *key, lengths, rule="blis_v2")
        npt.assert_array_equal(found, [naive.blis_v2_prefill(points, q) for q in lengths.tolist()])
    rows = [(int(m), int(k), int(n), float(u)) for m, k, n, _, u in naive.body(root / "gemm/h100/data.csv")]
    axes = [around([r[i] for r in rows], rng, 20_000) for i in range(3)]
    m, k, n = (np.array([rng.choice(axis) for _ in range(1000)]) for axis in axes)
    for rule in BLIS:
        want = [naive.blis_gemm(rule, rows, *q) for q in zip(m.tolist(), k.tolist(), n.tolist(), strict=True)]
        npt.assert_array_equal(data.gemm_mfu("h100", m, k, n, rule=rule), want)


def test_infersim_rules_on_its_own_files(shared):
    root = shared / "bench_data" / "infersim"
    data, rng = load_bench_data(root), random.Random(6)
    for family in ("mha", "mla"):
        for path in sorted((root / family / "decode").rglob("*.csv")):
            rows, gpu, key = naive.body(path), path.parent.name, [int(x) for x in path.stem.split("-")]
            read = data.attn_decode_mfu if family == "mha" else data.mla_decode_mfu
            for kv_dtype in sorted({r[1] for r in rows}):
                batch, kv = pairs_of(
                    around([r[2] for r in rows], rng, 600), around([r[3] for r in rows], rng, 140_000), rng, 150
                )
                shapes = zip(batch.tolist(), kv.tolist(), strict=True)
                want = [naive.infersim_decode(rows, kv_dtype, *q) for q in shapes]
                npt.assert_array_equal(read(gpu, *key, batch, kv, kv_dtype=kv_dtype, rule="infersim"), want)
        for path in sorted((root / family / "prefill").rglob("*.csv")):
            rows, gpu, key = naive.body(path), path.parent.name, [int(x) for x in path.stem.split("-")]
            read = data.attn_prefill_mfu if family == "mha" else data.mla_prefill_mfu
            lengths = around([r[1] for r in rows], rng, 40_000)
            want = [naive.infersim_prefill(rows, naive.DEFAULT[gpu], q) for q in lengths.tolist()]
            npt.assert_array_equal(read(gpu, *key, lengths, rule="infersim"), want)
    for gpu in ("h20", "h800"):
        rows = naive.body(root / "gemm" / gpu / "data.csv")
        axes = [around([r[i] for r in rows], rng, 9_000) for i in range(3)]
        m, k, n = (np.array([rng.choice(axis) for _ in range(500)]) for axis in axes)
        shapes = zip(m.tolist(), k.tolist(), n.tolist(), strict=True)
        want = [naive.infersim_gemm(rows, naive.DEFAULT[gpu], *q) for q in shapes]
        npt.assert_array_equal(data.gemm_mfu(gpu, m, k, n, rule="infersim"), want)
        for phase in ("decode", "prefill"):
            rows = naive.body(root / "grouped_gemm" / phase / gpu / "data.csv")
            for key in sorted({tuple(int(x) for x in r[:6]) for r in rows}):
                experts, gpus, local, top_k, hidden, width = key
                tokens = around([r[6] for r in rows], rng, 20_000)[:40]
                tp = gpus * local // experts
                want = [naive.infersim_grouped(rows, phase, key, naive.DEFAULT[gpu], q) for q in tokens.tolist()]
                found = data.grouped_gemm_mfu(
                    gpu, phase, experts, top_k, hidden, width * tp, tokens, num_gpus=gpus, tp=tp, rule="infersim"
                )
                npt.assert_array_equal(found, np.transpose(want))


def test_each_kernel_has_one_specialisation():
    for name in scan.__all__:
        compiled = getattr(getattr(scan, name), "signatures", [])
        assert len(compiled) <= 1, f"{name}: {compiled}"
