"""Collecting: the plan, the journal, the measuring of one kernel, and every fault on the way."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fake_device import GRIDS, FakeDevice, model_time_s
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.collect import FAMILIES, Clocks, Device, Effort, Kernel, Point, Samples, collect
from mfuroof.collect.clocks import GpuWatch, parse_smi, throttle_reasons
from mfuroof.collect.grids import CPU, GPU
from mfuroof.collect.journal import Journal, read_journal
from mfuroof.collect.measure import measure
from mfuroof.collect.outliers import best_results, suspects
from mfuroof.collect.plan import DEFAULT_FAMILIES, plan
from mfuroof.collect.plan_steps import known_model, kv_room_tokens, step_points
from mfuroof.collect.routing import expert_loads
from mfuroof.collect.run import JOURNAL
from mfuroof.collect.shapes import ModelShapes, model_shapes
from mfuroof.errors import InputError, MfuroofError, OutputError, TableFormatError, UnknownNameError
from mfuroof.models import get_model
from mfuroof.tables.schema import FAMILIES as TABLES

NONE = (ModelShapes((), (), ()),)
SMALL = replace(GRIDS, sites=((64,),), tokens=((1, 4, 16),), heads=((),), experts=((),), widths=((),))
"""Three products, a copy and a square."""


class Planned:
    """What a plan asks of a device: an H200 with everything."""

    device = Device("NVIDIA H200", "cuda", 141e9, 60e6, 8)
    families = tuple(FAMILIES)

    def variants(self, family: str) -> tuple[str, ...]:
        own = {
            "ceiling": ("copy", "matmul_bf16"),
            "gemm": ("bf16", "fp8_tensor", "fp8_row"),
            "elementwise": ("add",),
            "comm": ("nccl_fp16",),
        }
        return own.get(family, ("one",))


def run(out: Path, device: FakeDevice | None = None, **more: object):
    more = {"grids": SMALL, "families": ["ceiling", "gemm"], "gpu": "fake"} | more
    return collect(device or FakeDevice(), out, **more)


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / JOURNAL).read_text().splitlines()]


# ------------------------------------------------------------------ plan


def test_a_plan_begins_with_what_bounds_everything_and_repeats_nothing():
    points = plan(DEFAULT_FAMILIES, Planned(), GPU, (model_shapes([get_model("Qwen/Qwen3-8B")]),), levels=2)
    levels = [p.level for p in points]
    assert levels == sorted(levels)
    assert {p.family for p in points if p.level == 0} == {"ceiling", "launch"}
    assert len(set(points)) == len(points) == len({p.name for p in points})
    first = points[levels.index(1) :][:100]  # a short budget must not leave a family empty
    assert {p.family for p in first} == set(DEFAULT_FAMILIES) - {"ceiling", "launch"}


def test_attention_rows_have_no_gap_that_a_lattice_would_fill_wrongly():
    points = plan(["attn_decode", "attn_prefill"], Planned(), GPU, NONE, levels=3)
    for level in (1, 2, 3):
        known = [p for p in points if p.level <= level]
        for family in ("attn_decode", "attn_prefill"):
            keys = [p.keys for p in known if p.family == family]
            for heads in {k["num_attention_heads"] for k in keys}:
                batches = sorted({k["batch_size"] for k in keys if k["num_attention_heads"] == heads})
                assert batches == [2**i for i in range(len(batches))]


def test_points_of_table_families_have_the_keys_of_their_table():
    points = plan(DEFAULT_FAMILIES, Planned(), GPU, NONE, levels=1)
    for family in {p.family for p in points} & set(TABLES):
        point = next(p for p in points if p.family == family)
        assert tuple(point.keys) == TABLES[family].keys
        for column in TABLES[family].columns:
            if column.choices:
                assert point.keys[column.name] in column.choices


def test_a_model_adds_its_matrices_under_every_degree():
    shapes = model_shapes([get_model("meta-llama/Llama-3.1-8B"), get_model("mistralai/Mixtral-8x7B-v0.1")], (1, 4, 3))
    assert {(6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)} <= set(shapes.sites)
    assert {(1536, 4096), (4096, 1024), (7168, 4096), (4096, 3584), (32064, 4096)} <= set(shapes.sites)
    assert shapes.heads == ((32, 8, 128), (8, 2, 128))  # three ranks divide nothing
    assert set(shapes.experts) >= {(8, 2, 4096, 14336, 1, 1), (8, 2, 4096, 14336, 4, 1), (8, 2, 4096, 14336, 1, 4)}


def test_steps_fit_the_memory_and_are_many():
    name, memory = "meta-llama/Llama-3.1-8B", 141e9
    points = list(step_points(name, "torch", memory))
    model = known_model(name)
    room = kv_room_tokens(model, memory)
    assert room * model.kv_bytes_per_token + model.weight_bytes <= memory
    kinds = {"decode": 0, "prefill": 0, "mixed": 0}
    for point in points:
        _, batch, context, prompts, new, prefix = point.shape
        assert batch * (context + 1) + prompts * (prefix + new) <= room
        kinds["mixed" if batch and prompts else "decode" if batch else "prefill"] += 1
    assert len(points) >= 200 and min(kinds.values()) >= 30
    assert not list(step_points(name, "torch", 16e9))  # the weights alone do not fit


# ------------------------------------------------------------------ experts


@given(
    tokens=st.integers(1, 300),
    experts=st.sampled_from([4, 8, 16]),
    top_k=st.integers(1, 4),
    ep=st.sampled_from([1, 2, 4]),
    skew=st.sampled_from(["balanced", "power_law_1.01", "power_law_1.2", "power_law_1"]),
)
def test_loads_are_whole_tokens_of_the_busiest_rank(tokens, experts, top_k, ep, skew):
    all_of_them = expert_loads(tokens, experts, top_k, 1, skew)
    busiest = expert_loads(tokens, experts, top_k, ep, skew)
    assert all_of_them.sum() == tokens * top_k
    assert busiest.size == experts // ep
    assert busiest.sum() >= tokens * top_k / ep
    assert busiest.min() >= 0 and busiest.max() <= tokens
    if skew == "balanced":
        assert all_of_them.max() - all_of_them.min() <= 1


def test_a_power_law_is_skewed():
    loads = np.sort(expert_loads(4096, 64, 8, 1, "power_law_1.2"))
    assert loads[-8:].sum() > 0.4 * loads.sum()


# ------------------------------------------------------------------ measuring


class Script:
    """A backend that answers with prepared samples."""

    def __init__(self, *answers: tuple[float, ...]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[int, int]] = []

    def time(self, kernel, calls, samples):
        self.asked.append((calls, samples))
        return Samples(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0], "script")


def test_the_median_counts_and_a_wide_spread_is_measured_again():
    kernel = Kernel(lambda i: None, 4, lambda: 0.0, 0.0)
    wide, narrow = (1e-3, 2e-3, 3e-3, 9e-3, 1e-3), (2e-3, 2.01e-3, 2.02e-3, 1.99e-3, 2e-3)
    found = measure(Script((1e-3,), (1e-3,), wide, narrow), kernel, Effort(sample_s=1e-2, samples=5))
    assert found.latency_s == 2e-3 and found.retries == 1 and found.samples == 5
    assert found.spread < 0.01
    stubborn = measure(Script((1e-3,), (1e-3,), wide), kernel, Effort(samples=5, retries=2))
    assert stubborn.spread > 0.5  # nothing better was to be had, and it says so


def test_calls_fill_a_sample_and_use_every_set_of_buffers():
    kernel = Kernel(lambda i: None, 100, lambda: 0.0, 0.0)
    device = Script((1e-3,))
    measure(device, kernel, Effort(sample_s=1e-2))
    assert device.asked[0] == (100, 1) and device.asked[-1] == (100, 5)  # a tenth of a second each
    device = Script((2.0**-20,))
    measure(device, kernel, Effort(sample_s=2.0**-10))
    assert device.asked[-1] == (1024, 15)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_clock_that_stands_still_is_an_error(seconds):
    with pytest.raises(ArithmeticError):
        measure(Script((seconds,)), Kernel(lambda i: None, 1, lambda: 0.0, 0.0), Effort())


# ------------------------------------------------------------------ journal


def test_a_journal_survives_a_torn_line_but_not_a_damaged_one(tmp_path):
    path = tmp_path / "j"
    with Journal(path) as journal:
        journal.begin(device={})
        journal.add({"status": "ok", "point": "a"})
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"status": "ok", "poi')
    with Journal(path) as journal:
        assert [r["point"] for r in journal.results] == ["a"]
        journal.add({"status": "ok", "point": "b"})
    assert path.read_bytes().startswith(whole + b'{"status": "ok", "point": "b"')
    path.write_bytes(b'{"journal": 1}\n{"status": "o\n{"status": "ok"}\n')
    with pytest.raises(TableFormatError, match="line 2"):
        Journal(path)
    path.write_bytes(b'{"status": "ok"}\n')
    with pytest.raises(TableFormatError, match="session of journal version"):
        read_journal(path)


def test_two_collections_do_not_share_a_journal(tmp_path):
    pytest.importorskip("fcntl")
    with Journal(tmp_path / "j"), pytest.raises(OutputError, match="another collection"):
        Journal(tmp_path / "j")


def test_a_full_disk_loses_nothing_that_was_measured(tmp_path, monkeypatch):
    write, budget = os.write, [1500]

    def scarce(file, data):
        if budget[0] <= 0:
            raise OSError(28, "No space left on device")
        budget[0] -= len(data)
        return write(file, data if budget[0] >= 0 else data[: budget[0]])

    monkeypatch.setattr(os, "write", scarce)
    with pytest.raises(OutputError, match=r"No space left.*--resume"):
        run(tmp_path / "o")
    monkeypatch.undo()
    before = read_journal(tmp_path / "o" / JOURNAL)[0]
    assert any("status" in r for r in before)
    found = run(tmp_path / "o", resume=True)
    assert found.progress.done == found.progress.planned == 5
    assert found.progress.measured == 5 - sum("status" in r for r in before)


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is no folder"):
        run(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be written"):
        run(tmp_path / "file" / "below")


# ------------------------------------------------------------------ faults of the device


def test_out_of_memory_and_missing_kernels_are_skipped_and_recorded(tmp_path):
    device = FakeDevice(oom=lambda p: p.keys.get("m") == 4, unsupported=lambda p: p.keys.get("m") == 16)
    found = run(tmp_path / "o", device)
    assert found.compiled.counts["gemm"] == {"ok": 1, "oom": 1, "unsupported": 1}
    assert found.compiled.rows == {"gemm": 1}
    assert device.released == 5
    record = json.loads((found.compiled.folder / "gemm/own.provenance.json").read_text())
    assert record["left_out"] == {"oom": 1, "unsupported": 1}
    assert any("9 GiB" in text for text in record["left_out_points"])
    again = run(tmp_path / "o", device, resume=True)
    assert again.progress.measured == 0  # both are answers, not accidents


def test_a_wrong_result_is_an_error_and_no_data(tmp_path):
    found = run(tmp_path / "o", FakeDevice(wrong=lambda p: p.keys.get("m") == 4))
    assert found.compiled.counts["gemm"] == {"ok": 2, "wrong": 1}
    assert found.compiled.rows["gemm"] == 2
    wrong = next(r for r in lines(tmp_path / "o") if r.get("status") == "wrong")
    assert "reference" in wrong["text"] and "latency_s" not in wrong
    assert [f.code for f in found.audit.of(severity="warning")] == ["left-out"]


def test_a_failing_kernel_is_given_up_and_tried_again_in_another_session(tmp_path):
    grids = replace(SMALL, tokens=((1, 2, 4, 8, 16, 32, 64),))
    found = run(tmp_path / "o", FakeDevice(broken=lambda p: p.family == "gemm"), grids=grids)
    assert found.progress.counts == {"ok": 2, "failed": 5}
    assert found.progress.given_up == ["gemm bf16: RuntimeError: illegal something"]
    found = run(tmp_path / "o", resume=True, grids=grids)
    assert found.compiled.counts["gemm"] == {"ok": 7}


def test_a_dead_device_ends_the_collection_and_keeps_what_there_is(tmp_path):
    device = FakeDevice(broken=lambda p: p.keys.get("m") == 4, dead=True)
    with pytest.raises(MfuroofError, match=r"computes no more since gemm bf16: .*m 4.*--resume"):
        run(tmp_path / "o", device)
    assert {r["status"] for r in lines(tmp_path / "o") if "status" in r} == {"ok", "failed"}


def test_a_point_that_kills_the_process_twice_is_left_out(tmp_path):
    class Killed(BaseException):
        pass

    def kill(point):
        if point.keys.get("m") == 4:
            raise Killed
        return False

    for resume in (False, True):
        with pytest.raises(Killed):
            run(tmp_path / "o", FakeDevice(broken=kill), resume=resume)
    device = FakeDevice(broken=kill)
    found = run(tmp_path / "o", device, resume=True)
    assert found.compiled.counts["gemm"] == {"fatal": 1, "ok": 2}
    assert not any(name.endswith(",4") for name in device.prepared)


def test_an_interruption_loses_the_point_in_flight_and_leaves_tables(tmp_path):
    def stop(point):
        if point.keys.get("m") == 4:
            raise KeyboardInterrupt
        return False

    found = run(tmp_path / "o", FakeDevice(broken=stop))
    assert found.progress.interrupted and found.compiled.rows == {"gemm": 1}
    device = FakeDevice()
    again = run(tmp_path / "o", device, resume=True)
    assert again.compiled.rows == {"gemm": 3} and not again.progress.interrupted
    assert len(device.prepared) == 2  # the one in flight and the one after it


def test_time_ends_after_the_point_that_has_begun(tmp_path):
    now = iter(np.arange(0.0, 1e4, 25.0))
    found = run(tmp_path / "o", minutes=1.0, clock=lambda: float(next(now)))
    assert found.progress.out_of_time and 0 < found.progress.measured < 5
    assert run(tmp_path / "o", resume=True).progress.done == 5


def test_a_folder_is_continued_only_on_request_and_on_the_same_device(tmp_path):
    run(tmp_path / "o")
    with pytest.raises(InputError, match="--resume"):
        run(tmp_path / "o")
    with pytest.raises(InputError, match="a collection to continue"):
        run(tmp_path / "new", resume=True)
    other = FakeDevice()
    other._device = Device("another one", "cpu")
    with pytest.raises(InputError, match="folder of its own"):
        run(tmp_path / "o", other, resume=True)


def test_families_and_numbers_are_checked(tmp_path):
    with pytest.raises(UnknownNameError, match="gemm"):
        run(tmp_path / "o", families=["gem"])
    with pytest.raises(InputError, match="one that the device cpu has"):
        run(tmp_path / "o", families=["comm"])
    with pytest.raises(InputError, match="families"):
        run(tmp_path / "o", families=[])
    with pytest.raises(InputError, match="minutes"):
        run(tmp_path / "o", minutes=0)
    with pytest.raises(UnknownNameError, match="fp8 scaling"):
        run(tmp_path / "o", fp8_scaling="rows")
    assert run(tmp_path / "p", families=None).progress.planned == 5  # all but what the device cannot do


# ------------------------------------------------------------------ clocks and outliers


def test_a_device_held_back_by_heat_is_measured_again_and_reported(tmp_path):
    hot, cool = Clocks(sm_mhz=900.0, throttle=("hw_thermal",)), Clocks(sm_mhz=1900.0, throttle=("power_cap",))
    device = FakeDevice(state=[cool, cool, hot, cool, cool, hot, hot])
    found = run(tmp_path / "o", device)
    record = json.loads((found.compiled.folder / "gemm/own.provenance.json").read_text())
    assert record["clocks"]["sm_mhz"] == {"lowest": 900.0, "median": 1900.0, "highest": 1900.0}
    assert record["clocks"]["throttle"] == {"power_cap": 2, "hw_thermal": 1}
    assert [f.code for f in found.audit.of(severity="warning")] == ["clocks"]


def test_unreadable_clocks_are_said_to_be_so(tmp_path):
    found = run(tmp_path / "o")
    record = json.loads((found.compiled.folder / "gemm/own.provenance.json").read_text())
    assert record["clocks"] == {"sm_mhz": "unreadable"}
    assert found.audit.of(code="clocks")[0].severity == "info"


def test_what_stands_above_a_larger_shape_is_measured_again(tmp_path):
    spike = FakeDevice(factor=lambda p, visit: 3.0 if p.keys.get("m") == 4 and visit == 1 else 1.0)
    found = run(tmp_path / "o", spike)
    name = next(n for n in spike.prepared if n.endswith(",4"))
    assert spike.visits[name] == 2
    best = best_results([r for r in lines(tmp_path / "o") if "status" in r])
    quiet = model_time_s(Point.of("gemm", "bf16", 1, dtype="bf16", n=64, k=64, m=4))
    assert best[name]["latency_s"] == pytest.approx(quiet)
    assert found.progress.done == 5 and found.progress.measured == 6
    stubborn = FakeDevice(factor=lambda p, visit: 3.0 if p.keys.get("m") == 4 else 1.0)
    run(tmp_path / "p", stubborn)
    assert stubborn.visits[name] == 2  # not for ever
    assert suspects([r for r in lines(tmp_path / "p") if "status" in r]) == []


def test_throttle_reasons_and_the_lines_of_nvidia_smi():
    assert throttle_reasons(0x44) == ("power_cap", "hw_thermal")
    state = parse_smi("1980, 3201, 687.31, 54, 0x0000000000000004")
    assert state == Clocks(1980.0, 3201.0, 687.31, 54.0, ("power_cap",))
    assert not state.slowed and Clocks(throttle=("hw_thermal",)).slowed
    assert parse_smi("1980, [N/A], [N/A], 54, [N/A]") == Clocks(1980.0, None, None, 54.0)
    assert parse_smi("[N/A], [N/A], [N/A], [N/A], [N/A]") is None
    assert parse_smi("Unable to determine the device handle") is None


def test_a_machine_without_a_driver_has_no_clocks(monkeypatch):
    monkeypatch.setenv("PATH", "")
    watch = GpuWatch()
    assert watch.read() is None and watch.read() is None and watch.driver() == ""


def test_grids_of_the_small_device_are_small():
    points = plan(FakeDevice().families, FakeDevice(), CPU, NONE)
    assert 100 < len(points) < 200


def test_no_time_for_even_one_point_leaves_a_collection_to_go_on_with(tmp_path):
    late = iter([0.0, 1e9])
    found = run(tmp_path / "o", minutes=1.0, clock=lambda: next(late))
    assert found.progress.out_of_time and found.compiled.rows == {} and found.compiled.summary["noise"] == {}
    assert run(tmp_path / "o", resume=True).compiled.rows == {"gemm": 3}
