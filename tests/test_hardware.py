"""The catalogue and the device record: values against arithmetic and ratios, native rates, errors, user catalogues."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import re
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, MfuroofError, MfuroofWarning, TableFormatError, UnknownNameError
from mfuroof.hardware import Hardware, catalogue_document, get_hardware, known_hardware, load_catalogue
from mfuroof.hardware.catalogue import EMBEDDED
from mfuroof.hardware.parse import FIGURES
from mfuroof.hardware.rates import COMPUTE_DTYPES, FORMAT_LANES
from mfuroof.precision import FORMATS
from mfuroof.tables.store import available

DEVICES = [
    *("h100_sxm", "h100_pcie", "h100_nvl", "h200_sxm", "h800_sxm", "h20", "a100_sxm", "a100_40gb_sxm", "a100_pcie"),
    *("a10", "l4", "l40s", "rtx_4090", "rtx_5090", "rtx_pro_6000_server", "b200_sxm", "b300_sxm", "gb200", "gb300"),
    *("mi300x", "mi325x", "mi355x", "tpu_v5e", "tpu_v6e", "gaudi3"),
]
TOLERANCE = 0.025
GIB = 2**30

# rate over bf16 where the hardware has the lane; exceptions are real, not misprints
RATIOS = {"fp16": 1.0, "fp8": 2.0, "int8": 2.0, "fp4": 4.0, "tf32": 0.5}
EXCEPTIONS = {
    ("rtx_4090", "int8"): 4.0,  # GeForce halves floating point under 32-bit accumulation, not int8
    ("rtx_5090", "int8"): 4.0,
    ("rtx_5090", "fp4"): 8.0,
    ("b300_sxm", "int8"): 153.5 / 2250,  # Blackwell Ultra gave up int8 for FP4
    ("gb300", "int8"): 165 / 2500,
    ("b300_sxm", "fp4"): 6.0,
    ("gb300", "fp4"): 6.0,
    ("gaudi3", "fp8"): 1.0,
}


def test_every_device_is_known_and_named_once() -> None:
    assert list(known_hardware()) == DEVICES
    for device in DEVICES:
        assert get_hardware(device).name == device


@pytest.mark.parametrize("device", DEVICES)
def test_rates_stand_in_the_ratios_of_their_generation(device: str) -> None:
    gpu = get_hardware(device)
    for dtype, ratio in RATIOS.items():
        if dtype in gpu.peak_flops_per_s:
            expected = EXCEPTIONS.get((device, dtype), ratio)
            assert gpu.peak(dtype) / gpu.peak("bf16") == pytest.approx(expected, rel=TOLERANCE), dtype


@pytest.mark.parametrize("device", DEVICES)
def test_every_figure_has_a_source_and_arithmetic_sources_add_up(device: str) -> None:
    raw = json.loads(EMBEDDED.read_text())["devices"][device]
    gpu = get_hardware(device)
    assert set(raw["figures"]) >= set(FIGURES) - {f"{d}_tflops_per_s" for d in COMPUTE_DTYPES}
    for key, figure in raw["figures"].items():
        assert figure["sources"], key
        assert gpu.sources[FIGURES[key]] == tuple(figure["sources"])
    for dtype in gpu.peak_flops_per_s:
        assert gpu.sources[f"peak_flops_per_s.{dtype}"]
    pattern = r"arithmetic: (\d+) (?:SM|CU) x (\d+) dense FLOP/clock x ([\d.]+) GHz"
    for text in gpu.sources["peak_flops_per_s.bf16"]:
        if found := re.fullmatch(pattern, text):
            sms, per_clock, ghz = int(found[1]), int(found[2]), float(found[3])
            assert sms == gpu.num_sms
            assert sms * per_clock * ghz * 1e9 == pytest.approx(gpu.peak("bf16"), rel=2e-3)
    for text in gpu.sources["hbm_bytes"]:
        if found := re.match(r"nvidia-smi: (\d+) MiB", text):
            assert gpu.hbm_bytes == int(found[1]) * 2**20


def test_values_that_peers_get_wrong() -> None:
    assert get_hardware("l40s").peak("fp8") == 733e12  # 1466 is sparse
    assert get_hardware("H100").peak_flops_per_s["fp8"] == 1978.9e12  # 3958 is sparse
    assert not get_hardware("a100_sxm").native("fp8")
    assert 79 * GIB < get_hardware("h100_sxm").hbm_bytes < 80 * GIB
    assert 44 * GIB < get_hardware("l40s").hbm_bytes < 45 * GIB
    assert get_hardware("h100_sxm").nvlink_bytes_per_s == 450e9  # one direction
    assert get_hardware("h20").ridge_point("bf16") == pytest.approx(37.0)


def test_tables_name_the_measured_devices() -> None:
    named = {d: get_hardware(d).tables for d in DEVICES if get_hardware(d).tables}
    assert named == {gpu: gpu for gpu in available()}


@pytest.mark.parametrize(
    ("name", "device"),
    [
        ("H100", "h100_sxm"),
        ("H100-SXM", "h100_sxm"),
        ("H100_SXM5_80GB", "h100_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("h100 pcie", "h100_pcie"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("A100-80", "a100_sxm"),
        ("A100-SXM", "a100_sxm"),
        ("a100", "a100_sxm"),
        ("A100-40GB", "a100_40gb_sxm"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie"),
        ("b200", "b200_sxm"),
        ("GB200 NVL72", "gb200"),
        ("L40s", "l40s"),
        ("RTX 4090", "rtx_4090"),
        ("AMD Instinct MI300X", "mi300x"),
        ("TPU v6e", "tpu_v6e"),
        ("Gaudi-3", "gaudi3"),
    ],
)
def test_aliases(name: str, device: str) -> None:
    assert get_hardware(name).name == device


@given(st.sampled_from(DEVICES), st.randoms(use_true_random=False))
def test_names_ignore_case_and_punctuation(device: str, random: object) -> None:
    noisy = "".join(
        c.upper() if random.random() < 0.5 else c  # type: ignore[attr-defined]
        for part in device.split("_")
        for c in part + random.choice("-_ ./")  # type: ignore[attr-defined]
    )
    assert get_hardware(noisy) is get_hardware(device)


@pytest.mark.parametrize("name", ["H1000", "", "V100", None, 3, "H100-SXM-96GB?"])
def test_unknown_names_raise_and_list_what_is_known(name: object) -> None:
    with pytest.raises(UnknownNameError) as caught:
        get_hardware(name)  # type: ignore[arg-type]
    assert caught.value.known == tuple(DEVICES)


def test_a_record_is_handed_back() -> None:
    gpu = get_hardware("l4")
    assert get_hardware(gpu) is gpu


# --- native rates


def test_native_rate_rules() -> None:
    a100, h100, l40s, b200 = (get_hardware(d) for d in ("a100_sxm", "h100_sxm", "l40s", "b200_sxm"))
    mi355x, tpu, gaudi = (get_hardware(d) for d in ("mi355x", "tpu_v6e", "gaudi3"))
    for gpu in (a100, h100, l40s, b200, mi355x):
        for weight_only in ("int4", "int4_wo", "int8_wo", "fp8_wo", "w4a16_mxfp4", "nf4"):
            assert gpu.peak(weight_only) == gpu.peak("bf16")
    assert a100.peak("fp8") == a100.peak("fp8_block") == a100.peak("bf16")
    assert a100.peak("int8") == 2 * a100.peak("bf16")
    assert h100.peak("fp8_block") == h100.peak("fp8") == l40s.peak("fp8_e4m3") / 733 * 1978.9
    assert h100.peak("nvfp4") == h100.peak("mxfp4") == h100.peak("mxfp8") == h100.peak("bf16")
    assert not h100.native("nvfp4")
    assert b200.native("nvfp4")
    assert b200.peak("nvfp4") == b200.peak("mxfp4") == 9e15
    assert b200.peak("mxfp8") == b200.peak("w4a8_mxfp4_mxfp8") == 4.5e15
    assert mi355x.native("mxfp4")
    assert not mi355x.native("nvfp4")
    assert tpu.peak("fp8") == tpu.peak("fp16") == tpu.peak("bf16")
    assert not gaudi.native("int8")
    assert h100.peak("fp32") == h100.peak("tf32")
    with pytest.raises(InputError, match="tf32"):
        mi355x.peak("fp32")
    with pytest.raises(UnknownNameError):
        h100.peak("fp5")


def test_every_weight_format_has_the_lane_of_its_compute_class() -> None:
    assert set(FORMATS) <= set(FORMAT_LANES)
    for name, form in FORMATS.items():
        assert FORMAT_LANES[name].dtype == ("fp16" if name == "fp16" else form.compute_class)


@given(st.sampled_from(DEVICES), st.sampled_from(sorted(FORMAT_LANES)))
def test_a_format_runs_at_its_own_rate_or_the_16_bit_one(device: str, dtype: str) -> None:
    gpu = get_hardware(device)
    if FORMAT_LANES[dtype].dtype == "tf32" and not gpu.native(dtype):
        return
    expected = gpu.peak_flops_per_s[FORMAT_LANES[dtype].dtype] if gpu.native(dtype) else gpu.peak_flops_per_s["bf16"]
    assert gpu.peak(dtype) == expected


def test_16_bit_rate_is_fp16_where_there_is_no_bf16() -> None:
    turing = Hardware("t4", {"fp16": 65e12, "int8": 130e12}, 0.32e12, 15 * GIB)
    assert turing.peak("bf16") == turing.peak("int4") == 65e12


# --- the record


def test_record_is_frozen_hashable_picklable_and_overridable() -> None:
    gpu = get_hardware("h100_sxm")
    for other in (pickle.loads(pickle.dumps(gpu)), copy.deepcopy(gpu), dataclasses.replace(gpu)):
        assert other == gpu
        assert hash(other) == hash(gpu)
        assert other.sources == gpu.sources
    with pytest.raises(dataclasses.FrozenInstanceError):
        gpu.hbm_bytes = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        gpu.peak_flops_per_s["bf16"] = 1.0  # type: ignore[index]
    changed: dict[str, Any] = {
        "name": "mine",
        "peak_flops_per_s": {"bf16": 989e12},
        "compute_capability": (10, 0),
        "tables": None,
        "num_sms": None,
        "tdp_w": 300.0,
        "vendor": "me",
        "arch": "new",
        "num_nvlink_gpus": 4,
        "sources": {},
        **dict.fromkeys([f.name for f in dataclasses.fields(gpu) if f.name.endswith("bytes_per_s")], 7e9),
        "hbm_bytes": 1e9,
    }
    assert set(changed) == {f.name for f in dataclasses.fields(gpu)}
    for key, value in changed.items():
        assert getattr(dataclasses.replace(gpu, **{key: value}), key) == value


def test_all_problems_come_in_one_error() -> None:
    with pytest.raises(InputError) as caught:
        Hardware(
            "",
            {"fp5": 1.0, "fp8": -2.0},
            float("nan"),
            -1.0,
            vendor=3,  # type: ignore[arg-type]
            compute_capability="ninety",  # type: ignore[arg-type]
            num_nvlink_gpus=0,
            num_sms=1.5,  # type: ignore[arg-type]
            tdp_w=float("inf"),
            tables="",
            sources={"tdp_w": "a text"},  # type: ignore[dict-item]
        )
    where = {p.where for p in caught.value.problems}
    assert where == {
        *("name", "vendor", "peak_flops_per_s", "peak_flops_per_s.fp5", "peak_flops_per_s.fp8", "hbm_bytes_per_s"),
        *("hbm_bytes", "compute_capability", "num_nvlink_gpus", "num_sms", "tdp_w", "tables", "sources.tdp_w"),
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from([f.name for f in dataclasses.fields(Hardware)]), anything)
def test_no_foreign_error_from_a_field(name: str, value: object) -> None:
    try:
        gpu = dataclasses.replace(get_hardware("h100_sxm"), **{name: cast(Any, value)})
    except MfuroofError:
        return
    repr(gpu)
    hash(gpu)
    pickle.dumps(gpu)


def test_from_figures() -> None:
    gpu = Hardware.from_figures("x", bf16_tflops_per_s=362.05, hbm_tb_per_s=0.864, fp8_tflops_per_s=733, hbm_gib=48)
    assert dict(gpu.peak_flops_per_s) == {"bf16": 362.05e12, "fp16": 362.05e12, "fp8": 733e12}
    assert gpu.hbm_bytes == 48 * GIB
    assert Hardware.from_figures("y", bf16_tflops_per_s=1, hbm_tb_per_s=1).peak("fp8") == 1e12
    with pytest.raises(InputError) as caught:
        Hardware.from_figures("x", bf16_tflops_per_s=-1, hbm_tb_per_s=0, hbm_gib="much", nvlinks=3)  # type: ignore[arg-type]
    assert {p.where for p in caught.value.problems} == {"bf16_tflops_per_s", "hbm_tb_per_s", "hbm_gib", "nvlinks"}
    with pytest.raises(InputError, match="bf16"):
        Hardware.from_figures("x", bf16_tflops_per_s=0, fp16_tflops_per_s=0, hbm_tb_per_s=1)


# --- user catalogues


def write(folder: Path, document: object, name: str = "mine.json") -> Path:
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def test_catalogue_round_trips_through_a_file(tmp_path: Path) -> None:
    gpus = [get_hardware(d) for d in DEVICES]
    loaded = load_catalogue(write(tmp_path, catalogue_document(gpus)))
    for gpu in gpus:
        again = loaded[gpu.name]
        for f in dataclasses.fields(gpu):
            mine, other = getattr(gpu, f.name), getattr(again, f.name)
            if isinstance(mine, float) or f.name == "peak_flops_per_s":
                other = dict(other) if f.name == "peak_flops_per_s" else other
                mine = dict(mine) if f.name == "peak_flops_per_s" else mine
                assert other == pytest.approx(mine, rel=1e-15)
            else:
                assert other == mine, f.name


def test_user_catalogue_comes_before_the_embedded_one(tmp_path: Path) -> None:
    mine = {"figures": {"bf16_tflops_per_s": 100, "hbm_tb_per_s": {"value": 1, "sources": ["me"]}}, "aliases": ["H100"]}
    path = write(tmp_path, {"format": "mfuroof-gpus-1", "devices": {"my_gpu": mine}})
    assert get_hardware("h100", catalogue=path).name == "my_gpu"
    assert get_hardware("MY-GPU", load_catalogue(path)).sources["hbm_bytes_per_s"] == ("me",)
    assert get_hardware("my gpu", path).sources["peak_flops_per_s.bf16"] == ("catalogue file mine.json",)
    assert "fp16" not in get_hardware("my gpu", path).peak_flops_per_s
    assert get_hardware("h200", path).name == "h200_sxm"
    with pytest.raises(UnknownNameError, match="my_gpu"):
        get_hardware("my_gpus", path)


def test_errors_of_a_catalogue_name_file_device_and_field(tmp_path: Path) -> None:
    bad = {
        "one": {"figures": {"bf16_tflops_per_s": {"value": -1, "sources": ["x"]}, "hbm_tb_per_s": 1}},
        "two": {"figures": {"bf16_tflops_per_s": "fast", "hbm_tb_per_s": True, "hbm_gb": 4}, "colour": "green"},
        "three": {"figures": {"hbm_tb_per_s": {"value": 1, "sources": "x", "unit": "TB"}}, "aliases": "x"},
        "four": 7,
        "five": {"figures": {"bf16_tflops_per_s": 1, "hbm_tb_per_s": 1}, "compute_capability": "9"},
    }
    with pytest.raises(TableFormatError) as caught:
        load_catalogue(write(tmp_path, {"format": "else", "devices": bad}))
    where = {p.where.removeprefix("mine.json: ") for p in caught.value.problems}
    assert where == {
        "format",
        "one: bf16_tflops_per_s",
        *("two: figures.bf16_tflops_per_s", "two: figures.hbm_tb_per_s", "two: figures.hbm_gb", "two.colour"),
        *("three: figures.bf16_tflops_per_s", "three: figures.hbm_tb_per_s.unit"),
        *("three: figures.hbm_tb_per_s.sources", "three: aliases", "four", "five: compute_capability"),
    }


@pytest.mark.parametrize("text", ["", "[]", "{", '{"devices": []}', "[" * 100_000, '{"format": 1}', "\0", "NaN"])
def test_what_is_no_catalogue_is_a_typed_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(TableFormatError, match=r"mine\.json"):
        load_catalogue(write(tmp_path, text))


def test_unreadable_files_are_a_typed_error(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b"\xff\xfe{}")
    for path in (tmp_path / "nothing.json", tmp_path, tmp_path / "latin.json"):
        with pytest.raises(InputError, match=path.name):
            load_catalogue(path)


def test_one_name_for_two_devices_is_an_error(tmp_path: Path) -> None:
    figures = {"bf16_tflops_per_s": 1, "hbm_tb_per_s": 1}
    devices = {"a": {"figures": figures, "aliases": ["X-1"]}, "b": {"figures": figures, "aliases": ["x1"]}}
    with pytest.raises(InputError, match="x1"):
        load_catalogue(write(tmp_path, {"format": "mfuroof-gpus-1", "devices": devices}))


def test_a_sparse_figure_is_noticed(tmp_path: Path) -> None:
    figures = {"bf16_tflops_per_s": 362.05, "fp8_tflops_per_s": 1466, "hbm_tb_per_s": 0.864}
    path = write(tmp_path, {"format": "mfuroof-gpus-1", "devices": {"l40s": {"figures": figures}}})
    with pytest.warns(MfuroofWarning, match="sparse"):
        assert load_catalogue(path)["l40s"].peak("fp8") == 1466e12


@given(st.dictionaries(st.sampled_from(["format", "devices", "x"]), anything | st.just("mfuroof-gpus-1")))
def test_no_foreign_error_from_a_catalogue(document: dict[str, object]) -> None:
    _try_catalogue(document)


@given(
    st.dictionaries(st.sampled_from([*FIGURES, "x"]), anything),
    st.dictionaries(
        st.sampled_from(["vendor", "arch", "compute_capability", "tables", "aliases", "notes", "x"]), anything
    ),
)
def test_no_foreign_error_from_a_device(figures: dict[str, object], other: dict[str, object]) -> None:
    base = {"bf16_tflops_per_s": 1, "hbm_tb_per_s": 1}
    _try_catalogue({"format": "mfuroof-gpus-1", "devices": {"x": {"figures": {**base, **figures}, **other}}})


def _try_catalogue(document: object) -> None:
    import tempfile
    import warnings

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        try:
            load_catalogue(write(Path(folder), document))
        except MfuroofError:
            return


def test_a_catalogue_answers_for_its_devices() -> None:
    catalogue = load_catalogue(EMBEDDED)
    assert "h100_sxm" in repr(catalogue) and all(name in DEVICES or catalogue[name] for name in catalogue)
    assert "H100" in catalogue.aliases("h100_sxm")
    assert all(isinstance(catalogue.notes(name), tuple) for name in catalogue)
    peaks = get_hardware("h100_sxm").peak_flops_per_s
    assert repr(peaks) == repr(dict(peaks)) and len(peaks) == len(dict(peaks))
