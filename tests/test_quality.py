"""The audit of kernel tables: its figures equal their definitions, planted faults are found, sound tables are clean."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import naive_quality as naive
import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfuroof.batch import StepBatch
from mfuroof.cli import main
from mfuroof.errors import InputError, MissingTableError, UnknownNameError
from mfuroof.params import CostParams
from mfuroof.repairs import monotone_repairs
from mfuroof.step import StepEvaluator
from mfuroof.tables import schema
from mfuroof.tables.quality_audit import audit_tables
from mfuroof.tables.quality_grid import gaps
from mfuroof.tables.quality_lines import axes_of, bounds, lines, power
from mfuroof.tables.quality_points import FALL, OUTLIER, falls, outliers
from mfuroof.tables.quality_report import TableQuality
from mfuroof.tables.quality_rules import RULES, leave_one_out
from mfuroof.tables.store import load_tables

DECODE = {"attn_dtype": "bf16", "kv_dtype": "bf16", "num_attention_heads": 32, "num_key_value_heads": 8}
DECODE |= {"head_dim": 128, "sliding_window": 0}
MOE = {"dtype": "bf16", "num_experts": 8, "num_experts_per_tok": 2, "hidden_size": 4096}
MOE |= {"moe_intermediate_size": 14336, "tp_size": 1, "ep_size": 1, "distribution": "balanced"}
PREFILL = {**DECODE}
PEAK, BANDWIDTH = 700e12, 2.6e12


def gemm_s(m: int, n: int, k: int) -> float:
    """A launch, then the slower of compute and weight reads: physics without noise."""
    return 2e-6 + max(2.0 * m * n * k / PEAK, (n * k + m * k + m * n) * 2.0 / BANDWIDTH)


def sound() -> dict[str, list[dict[str, Any]]]:
    """Tables of a GPU without a fault."""
    octaves = [2**i for i in range(4, 13)]
    gemm = [
        {"dtype": "bf16", "n": n, "k": k, "m": m, "latency_s": gemm_s(m, n, k)}
        for n, k, m in itertools.product((1024, 2048, 4096, 6144), (1024, 4096, 8192), [1, *octaves, 6000])
    ]
    decode = [
        {**DECODE, "batch_size": b, "kv_len": kv, "latency_s": 4e-6 + b * kv * 4096.0 / BANDWIDTH}
        for b, kv in itertools.product((1, 2, 4, 8, 16), octaves)
        if b * kv <= 2**15
    ]
    prefill = [
        {**PREFILL, "batch_size": b, "new_tokens": s, "latency_s": 6e-6 + b * (s * 1e-9 + s * s * 8192.0 / PEAK)}
        for b, s in itertools.product((1, 2, 4), [1, *octaves])
    ]
    moe = [
        {**MOE, "tokens": t, "latency_s": 9e-6 + (1 - 0.75**t) * 8 * 3 * 4096 * 14336 * 2 / BANDWIDTH + t * 4e-8}
        for t in [1, 2, 4, 8, *octaves]
    ]
    return {"gemm": gemm, "attn_decode": decode, "attn_prefill": prefill, "moe": moe}


def database(root: Path, tables: dict[str, list[dict[str, Any]]], engine: str = "vllm", gpu: str = "mine") -> Path:
    for name, rows in tables.items():
        folder = root / gpu / name
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(table_of(name, rows), folder / f"{engine}.parquet")
    return root / gpu


def table_of(name: str, rows: list[dict[str, Any]]) -> pa.Table:
    ordered = sorted(rows, key=lambda r: tuple(r[k] for k in schema.FAMILIES[name].keys))
    return schema.validate(pa.Table.from_pylist(ordered, schema=schema.arrow_schema(name)), name, "test")


def plain(table: pa.Table) -> list[tuple[dict[str, Any], float]]:
    return [({k: v for k, v in row.items() if k != "latency_s"}, row["latency_s"]) for row in table.to_pylist()]


def flagged(found: TableQuality, kind: str) -> list[tuple[str, dict[str, Any]]]:
    return [(row.family, json.loads(row.keys)) for row in found.rows_flagged if row.kind == kind]


@st.composite
def rough_tables(draw: st.DrawFn) -> tuple[str, pa.Table]:
    """Ragged tables of random times, in families of three, two and one axes."""
    name = draw(st.sampled_from(["gemm", "attn_decode", "attn_prefill", "moe"]))
    counts = st.sets(st.integers(1, 40), min_size=1, max_size=4)
    constant = {"gemm": {"dtype": "bf16"}, "moe": MOE}.get(name, DECODE)
    variants: list[dict[str, Any]] = [dict(constant)]
    if draw(st.booleans()):
        change = {"gemm": {"dtype": "fp8"}, "moe": {"num_experts": 16}}.get(name, {"head_dim": 64})
        variants.append({**constant, **change})
    rows = []
    for variant in variants:
        axes = [sorted(draw(counts)) for _ in axes_of(name)]
        for point in itertools.product(*axes):
            if draw(st.integers(0, 6)):
                shape = dict(zip(axes_of(name), point, strict=True))
                rows.append({**variant, **shape, "latency_s": draw(st.floats(1e-6, 1e-3))})
    if not rows:
        rows.append({**constant, **dict.fromkeys(axes_of(name), 1), "latency_s": 1e-5})
    return name, table_of(name, rows)


@settings(max_examples=60)
@given(rough_tables())
def test_figures_equal_their_definitions(drawn: tuple[str, pa.Table]) -> None:
    name, table = drawn
    rows, time_s = plain(table), table.column("latency_s").to_numpy()
    axes = {axis: power(name, axis) for axis in axes_of(name)}
    lined = [lines(table, name, axis) for axis in axes]
    implied = {of.axis: bounds(of, axes[of.axis]) for of in lined}
    for of in lined:
        fallen = falls(of)
        expected = naive.falls(rows, of.axis, FALL)
        got = list(zip(fallen.before.tolist(), fallen.after.tolist(), fallen.size.tolist(), strict=True))
        assert [g[:2] for g in sorted(got)] == [e[:2] for e in sorted(expected)]
        assert [g[2] for g in sorted(got)] == pytest.approx([e[2] for e in sorted(expected)], rel=1e-9)
        assert fallen.size.tolist() == sorted(fallen.size.tolist(), reverse=True)
        assert gaps(table, name, of).missing == naive.gaps(rows, axes, of.axis)
        for row in range(len(rows)):
            low, high = implied[of.axis].low_s[row], implied[of.axis].high_s[row]
            want = naive.bounds(rows, row, of.axis, axes[of.axis])
            assert (np.isnan(low) and np.isnan(high)) if want is None else (low, high) == pytest.approx(want, rel=1e-12)
        errors: dict[str, list[float]] = {rule: [] for rule in RULES}
        for row, (_, measured) in enumerate(rows):
            for rule, predicted in (naive.predictions(rows, row, of.axis, axes[of.axis]) or {}).items():
                errors[rule].append(abs(predicted / measured - 1.0))
        found = leave_one_out(of, axes[of.axis])
        assert set(found) == {rule for rule in RULES if errors[rule]}
        for rule, error in found.items():
            assert error.count == len(errors[rule])
            assert error.mean == pytest.approx(statistics.fmean(errors[rule]), rel=1e-9, abs=1e-12)
            assert error.median == pytest.approx(statistics.median(errors[rule]), rel=1e-9, abs=1e-12)
    wrong = outliers(time_s, lined, implied)
    expected_rows = naive.outliers(rows, axes, OUTLIER)
    assert set(wrong.row.tolist()) == set(expected_rows)
    for row, excess, slow in zip(wrong.row.tolist(), wrong.excess.tolist(), wrong.slow.tolist(), strict=True):
        assert (("slow" if slow else "fast"), excess) == (expected_rows[row][0], pytest.approx(expected_rows[row][1]))


def test_a_sound_table_is_clean(tmp_path: Path) -> None:
    found = audit_tables(database(tmp_path, sound()))
    assert found.report.exit_code == 0 and not found.rows_flagged
    assert {f.code for f in found.report.findings} == {"coverage", "rules"}
    for one in found.families:
        assert (one.slow, one.fast) == (0, 0)
        for axis in one.axes:
            assert (axis.falls, axis.gaps, axis.worst_at) == (0, 0, {})
            assert axis.monotone.changed == 0 and axis.monotone.largest == 0.0
    decode = next(f for f in found.families if f.family == "attn_decode")
    assert (decode.rows, decode.configurations, decode.product) == (44, 1, 45)
    # time is affine in the length: linear leaves nothing, holding the utilisation of a shorter one almost all
    kv_len = next(a for a in decode.axes if a.axis == "kv_len")
    assert kv_len.rules["linear"].mean < 1e-12 < 0.1 < kv_len.rules["floor"].mean


@settings(max_examples=40)
@given(st.data())
def test_a_planted_outlier_is_found_and_it_alone(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Octaves leave a factor of 2 (4 along a prompt) between what neighbours allow: 4 (8) times is beyond doubt."""
    tables = sound()
    name = data.draw(st.sampled_from(list(tables)))
    axis = axes_of(name)[-1]
    line_ends = {min(r[axis] for r in tables[name]), max(r[axis] for r in tables[name])}
    inside = [r for r in tables[name] if r[axis] not in line_ends and not (name == "attn_decode" and r["kv_len"] > 512)]
    row = data.draw(st.sampled_from(inside))
    factor = data.draw(st.floats(*((8.1, 200.0) if name == "attn_prefill" else (4.1, 200.0))))
    slow = data.draw(st.booleans())
    row["latency_s"] *= factor if slow else 1.0 / factor
    found = audit_tables(database(tmp_path_factory.mktemp("planted"), {name: tables[name]}))
    keys = {k: v for k, v in row.items() if k != "latency_s"}
    assert flagged(found, "outlier") == [(name, keys)]
    (finding,) = found.report.of(code="outliers")
    assert finding.severity == "warning" and finding.numbers["at"] == keys
    assert (finding.numbers["slow"], finding.numbers["fast"]) == (int(slow), int(not slow))
    assert finding.numbers["worst"] <= factor * (1 + 1e-9)
    assert finding.lines == (table_of(name, tables[name]).to_pylist().index(row),)


@pytest.mark.parametrize("factor", [4.0, 0.25])
def test_of_two_that_accuse_one_another_the_worse_is_the_culprit(tmp_path: Path, factor: float) -> None:
    """On a flat line a neighbour of the disturbed row misses its range too, by half as much the other way."""
    rows = [{**MOE, "tokens": 2**i, "latency_s": 1e-5 * (factor if i == 4 else 1.0)} for i in range(9)]
    found = audit_tables(database(tmp_path, {"moe": rows}))
    assert [keys["tokens"] for _, keys in flagged(found, "outlier")] == [16]


def test_a_step_that_goes_on_is_no_outlier(tmp_path: Path) -> None:
    """A change of kernel at one m triples all times there and above one weight shape's neighbours alike."""
    tables = {"gemm": sound()["gemm"]}
    for row in tables["gemm"]:
        row["latency_s"] *= 3.0 if row["m"] == 256 else 1.0
    found = audit_tables(database(tmp_path, tables))
    assert not flagged(found, "outlier")
    fall = next(f for f in found.report.of(code="not-monotone") if f.numbers["axis"] == "m")
    assert fall.severity == "warning" and fall.numbers["at"]["m"] == 256
    assert len(flagged(found, "fall")) == sum(keys["m"] == 512 for _, keys in flagged(found, "fall")) > 0


def test_falls_are_counted_and_named(tmp_path: Path) -> None:
    tables = {"moe": sound()["moe"]}
    for i, row in enumerate(tables["moe"]):
        row["latency_s"] = (10.0 + 2.0 * i) * 1e-6
    before, after = tables["moe"][5], tables["moe"][6]
    after["latency_s"] = 0.9 * before["latency_s"]
    found = audit_tables(database(tmp_path, tables))
    (axis,) = found.families[0].axes
    assert (axis.falls, axis.falls_beyond_noise, axis.pairs) == (1, 1, len(tables["moe"]) - 1)
    assert axis.worst_fall == pytest.approx(0.1) and axis.worst_at["tokens"] == before["tokens"]
    assert axis.monotone.changed == 2 and axis.monotone.largest == pytest.approx(19 / 18 - 1)  # 20 and 18 to 19
    (finding,) = found.report.of(code="not-monotone")
    assert finding.severity == "info" and not flagged(found, "fall")  # tiles explain a tenth
    after["latency_s"] = 0.98 * before["latency_s"] * 1.001
    assert not audit_tables(database(tmp_path, tables)).report.of(code="not-monotone")


def test_gaps_are_counted_where_the_grid_goes_on(tmp_path: Path) -> None:
    tables = {"attn_decode": sound()["attn_decode"]}
    missing = [r for r in tables["attn_decode"] if not (r["batch_size"] == 2 and r["kv_len"] in (64, 128))]
    found = audit_tables(database(tmp_path, {"attn_decode": missing}))
    by_axis = {axis.axis: axis.gaps for axis in found.families[0].axes}
    assert by_axis == {"batch_size": 2, "kv_len": 2}
    assert [f.numbers["missing"] for f in found.report.of(code="gaps")] == [2, 2]
    (finding,) = found.report.of(code="coverage")
    assert finding.numbers["holes"] == 3  # one of them beyond the frontier


def test_a_shape_measured_in_two_places(tmp_path: Path) -> None:
    """One GEMM is twice as slow in one engine's table; what is in one table alone is compared with nothing."""
    here, there = ({"gemm": sound()["gemm"]} for _ in range(2))
    big = next(r for r in here["gemm"] if (r["n"], r["k"], r["m"]) == (4096, 8192, 4096))
    big["latency_s"] *= 2.0
    there["gemm"] = [r for r in there["gemm"] if r["m"] > 16]
    folder = database(tmp_path, here)
    database(tmp_path, there, engine="sglang")
    found = audit_tables(folder)
    (engine,) = found.families[0].elsewhere
    assert (engine.engine, engine.rows) == ("sglang", len(there["gemm"]))
    assert (engine.median, engine.largest) == (1.0, pytest.approx(2.0))
    assert flagged(found, "elsewhere") == [("gemm", {k: v for k, v in big.items() if k != "latency_s"})]
    row = next(r for r in found.rows_flagged if r.kind == "elsewhere")
    assert row.low_s == row.high_s == pytest.approx(big["latency_s"] / 2.0) and row.excess == pytest.approx(2.0)
    (finding,) = found.report.of(code="elsewhere")
    assert "4096" in finding.text and "2.0 times slower" in finding.text
    other = audit_tables(folder, "sglang")
    assert next(r for r in other.rows_flagged if r.kind == "elsewhere").excess == pytest.approx(2.0)
    assert "faster" in other.report.of(code="elsewhere")[0].text


def test_tables_of_one_row_or_none_have_nothing_to_say(tmp_path: Path) -> None:
    rows = sound()
    found = audit_tables(database(tmp_path, {"gemm": rows["gemm"][:1], "moe": []}))
    assert [f.rows for f in found.families] == [1, 0] and found.report.exit_code == 0
    assert all(axis.rules == {} and axis.pairs == 0 for f in found.families for axis in f.axes)
    assert json.loads(found.to_json())["rows"] == 1 and "gemm" in found.text() and found.flagged().num_rows == 0


def test_bad_names_and_files(tmp_path: Path) -> None:
    folder = database(tmp_path, {"moe": sound()["moe"]})
    with pytest.raises(UnknownNameError, match="gemm"):
        audit_tables(folder, families=["gem"])
    with pytest.raises(MissingTableError, match="moe"):
        audit_tables(folder, families=["gemm"])
    with pytest.raises(UnknownNameError, match="engine"):
        audit_tables(folder, "sglang")
    with pytest.raises(UnknownNameError, match="h100_sxm"):
        audit_tables("h100_smx")
    (folder / "moe" / "vllm.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="parquet"):
        audit_tables(folder)


def test_embedded_tables_within_seconds() -> None:
    """A100 has the noisiest long-known shots; all of it takes a fraction of a second, the largest GPU two."""
    start = time.perf_counter()
    found = audit_tables("a100_sxm")
    assert time.perf_counter() - start < 5.0
    assert {f.family for f in found.families} == set(load_tables("a100_sxm").families)
    known = dict(DECODE, num_attention_heads=1, num_key_value_heads=1, batch_size=32, kv_len=4)
    assert ("attn_decode", known) in flagged(found, "outlier")
    for one in found.families:
        for axis in one.axes:  # measured grids interpolate: no family's best rule errs by more than a tenth
            assert min(error.mean for error in axis.rules.values()) < 0.1, (one.family, axis.axis)
            assert axis.rules["floor"].mean > axis.rules["linear"].mean


@pytest.mark.slow
@pytest.mark.parametrize(("gpu", "engine"), [("h100_sxm", "vllm"), ("b200_sxm", "trtllm")])
def test_the_largest_tables_within_seconds(gpu: str, engine: str) -> None:
    start = time.perf_counter()
    found = audit_tables(gpu, engine)
    assert time.perf_counter() - start < 15.0 and found.report.rows > 250_000
    assert len(found.families[0].elsewhere) == 2


def test_repair_leaves_measurements_reachable() -> None:
    """The repair is in the bound evaluator alone, is reported, and can be left out."""
    tables = load_tables("a100_sxm")
    before = tables.family("attn_decode").to_pydict()
    model = "meta-llama/Llama-3.1-8B"
    changes = {c.component: c for c in monotone_repairs(model, "a100_sxm", tables=tables)}
    assert tables.family("attn_decode").to_pydict() == before
    raw = StepEvaluator(model, "a100_sxm", tables=tables, params=CostParams(monotone=False))
    own = StepEvaluator(model, "a100_sxm", tables=tables)
    assert set(changes) == set(own.components)
    part = changes["attention_decode"]
    assert 0 < part.changed <= part.points and 0.0 < part.mean < part.largest
    batch = StepBatch.uniform(**part.largest_at)
    pair = [float(e.evaluate(batch).op_time_s["attention_decode"][0]) for e in (own, raw)]
    assert abs(pair[0] / pair[1] - 1.0) == pytest.approx(part.largest, rel=1e-12)
    where = dict(DECODE, batch_size=16, kv_len=1024)
    (measured,) = tables.family("attn_decode", **where).column("latency_s").to_pylist()
    step = StepBatch.uniform(decode_batch=16, decode_context=1023)
    assert raw.evaluate(step).op_time_s["attention_decode"][0] == pytest.approx(32 * measured, rel=1e-12)


def test_command_on_kernel_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tables = {"moe": sound()["moe"]}
    root = tmp_path / "db"
    database(root, tables)
    assert main(["audit", str(root / "mine")]) == 0  # the folder of a GPU, or the only one in a folder
    assert main(["audit", str(root), "--info"]) == 0
    assert "moe/vllm.parquet" in capsys.readouterr().out
    tables["moe"][5]["latency_s"] *= 30.0
    database(root, tables)
    out = tmp_path / "flagged.csv"
    assert main(["audit", str(root), "--json", "--out", str(out)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["families"][0]["slow"] == 1 and report["flagged_path"] == str(out)
    rows = csv.read_csv(out).to_pylist()
    assert [r["kind"] for r in rows] == ["outlier", "fall"] and json.loads(rows[0]["keys"])["tokens"] == 32
    assert main(["audit", str(root), "--fail-on", "error"]) == 0
    text = capsys.readouterr().out
    assert "outliers" in text and max(map(len, text.split("mine, vllm")[0].splitlines())) <= 60
    assert main(["audit", str(root), "--family", "gemm"]) == 3
    assert main(["audit", "h100_smx"]) == 2
    assert "h100_sxm" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["audit", str(tmp_path / "empty"), "--family", "gemm"]) == 2
