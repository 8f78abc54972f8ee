"""Launch arguments: every row of the mapping, the user's arguments, versions, quantised checkpoints."""

from __future__ import annotations

import json
import shlex
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfuroof.errors import InputError, MfuroofWarning, UnknownNameError
from mfuroof.models import get_model
from mfuroof.precision.runtime import ALLOWED, RuntimePrecision
from mfuroof.quant import ENGINES, PRESETS, RULES, detect, expand, launch_args
from mfuroof.quant.user_args import flag_key, read_user_args
from mfuroof.quant.versions import parse_version, within


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MfuroofWarning)
        return launch_args(*args, **kwargs)


# field, value: arguments by engine at the newest version; None is "not supported", "" nothing to say
ROWS = [
    ("gemm_dtype", "float16", "--dtype float16", "--dtype float16", {"dtype": "float16"}),
    ("gemm_dtype", "bfloat16", "--dtype bfloat16", "--dtype bfloat16", {"dtype": "bfloat16"}),
    ("gemm_dtype", "float32", "--dtype float32", "--dtype float32", {"dtype": "float32"}),
    ("gemm_dtype", "fp8", "--quantization fp8_per_tensor", "--quantization fp8", None),
    ("gemm_dtype", "int8", None, None, None),
    ("gemm_dtype", "mxfp8", "--quantization mxfp8", "--quantization mxfp8", None),
    ("gemm_dtype", "mxfp4", "--quantization mxfp4", "--quantization mxfp4", None),
    ("gemm_dtype", "nvfp4", None, None, None),
    ("kvcache_dtype", "fp16", "", "", ""),
    ("kvcache_dtype", "bfloat16", "", "--kv-cache-dtype bfloat16", ""),
    ("kvcache_dtype", "fp8", "--kv-cache-dtype fp8", "--kv-cache-dtype fp8_e4m3", "--kv_cache_dtype fp8"),
    ("kvcache_dtype", "fp8_e4m3", "--kv-cache-dtype fp8_e4m3", "--kv-cache-dtype fp8_e4m3", "--kv_cache_dtype fp8"),
    ("kvcache_dtype", "fp8_e5m2", "--kv-cache-dtype fp8_e5m2", "--kv-cache-dtype fp8_e5m2", None),
    ("kvcache_dtype", "int8", "--kv-cache-dtype int8_per_token_head", None, None),
    ("kvcache_dtype", "int4", "--kv-cache-dtype int4_per_token_head", None, None),
    ("kvcache_dtype", "mxfp8", None, "--kv-cache-dtype mxfp8", None),
    ("kvcache_dtype", "nvfp4", "--kv-cache-dtype nvfp4", "--kv-cache-dtype nvfp4", "--kv_cache_dtype nvfp4"),
    ("attention_dtype", "float16", "", "", ""),
    ("attention_dtype", "bfloat16", "", "", ""),
    ("attention_dtype", "fp8", None, None, None),
    ("attention_dtype", "fp8_e4m3", None, None, None),
    ("attention_dtype", "fp8_e5m2", None, None, None),
    ("attention_dtype", "fp8_block", None, None, None),
    ("moe_dtype", "float16", "", "", ""),
    ("moe_dtype", "bfloat16", "", "", ""),
    ("moe_dtype", "fp8", """--quantization-config '{"moe":"fp8_per_tensor"}'""", None, None),
    ("moe_dtype", "w4afp8", None, None, None),
    ("moe_dtype", "mxfp4", """--quantization-config '{"moe":"mxfp4"}'""", "--quantization mxfp4", None),
    ("moe_dtype", "mxfp8", """--quantization-config '{"moe":"mxfp8"}'""", None, None),
    ("moe_dtype", "int8", """--quantization-config '{"moe":"int8_per_channel_weight_only"}'""", None, None),
    ("moe_dtype", "nvfp4", """--quantization-config '{"moe":"nvfp4_per_token"}'""", None, None),
]


@pytest.mark.parametrize(("field", "value", "vllm", "sglang", "trtllm"), ROWS)
def test_every_row(field, value, vllm, sglang, trtllm):
    for engine, expected in (("vllm", vllm), ("sglang", sglang), ("trtllm", trtllm)):
        if expected is None:
            with pytest.raises(InputError, match=f"{field} = {value}"):
                launch_args(engine, {field: value}, unsupported="error")
            with pytest.warns(MfuroofWarning, match=f"{field} = {value}"):
                made = launch_args(engine, {field: value})
            assert made.args == {} and made.yaml == {}
        else:
            made = quiet(engine, {field: value}, unsupported="error")
            if isinstance(expected, dict):
                assert made.yaml == expected and made.args == {}
                assert made.to_list("o.yaml") == ["--config", "o.yaml"]
            else:
                assert made.to_shell() == expected and made.yaml == {}
            assert expected or made.notes  # a field that needs no option says so


def test_rows_cover_every_allowed_value():
    covered = {(field, value) for field, value, *_ in ROWS}
    assert covered == {(f, v) for f, values in ALLOWED.items() for v in values if v != "auto"}


def test_rules_name_a_source_and_do_not_overlap():
    assert all(rule.source and (rule.note or rule.outcome == "emit") for rule in RULES)
    versions = "0.5.3 0.18.2 0.20 0.20.2 0.24.0 0.27 0.29 0.33.0 1.3.0rc0 1.2.0 0.5.10 0.5.23"
    for version in versions.split():
        seen = [
            (r.engine, r.field, r.value) for r in RULES if within(parse_version(version), r.since, r.until)
        ]
        assert len(seen) == len(set(seen))


@pytest.mark.parametrize(
    ("engine", "version", "config", "line"),
    [
        ("vllm", "0.20.1", {"gemm_dtype": "fp8"}, "--quantization fp8"),
        ("vllm", "0.20.2", {"gemm_dtype": "fp8"}, "--quantization fp8_per_tensor"),
        ("vllm", "v0.33.0+cu129", {"gemm_dtype": "fp8"}, "--quantization fp8_per_tensor"),
        ("vllm", "0.20.1", {"kvcache_dtype": "int8"}, ""),
        ("vllm", "0.26", {"kvcache_dtype": "int4"}, ""),
        ("vllm", "0.27.0", {"kvcache_dtype": "int4"}, "--kv-cache-dtype int4_per_token_head"),
        ("vllm", "0.23", {"moe_dtype": "fp8"}, ""),
        ("vllm", "0.24", {"moe_dtype": "fp8"}, """--quantization-config '{"moe":"fp8_per_tensor"}'"""),
        ("vllm", "0.28", {"gemm_dtype": "mxfp4"}, ""),
        ("vllm", "0.29", {"gemm_dtype": "mxfp4"}, "--quantization mxfp4"),
        ("vllm", "0.20", {"gemm_dtype": "mxfp8"}, "--quantization mxfp8"),
        ("vllm", "0.18.2", {"gemm_dtype": "mxfp8"}, "--quantization mxfp8"),
        ("vllm", "0.18.1", {"gemm_dtype": "mxfp8"}, ""),
        ("sglang", "0.5.9", {"kvcache_dtype": "nvfp4"}, "--kv-cache-dtype fp4_e2m1"),
        ("sglang", "0.5.9.post1", {"kvcache_dtype": "nvfp4"}, "--kv-cache-dtype fp4_e2m1"),
        ("sglang", "0.5.15", {"kvcache_dtype": "nvfp4"}, ""),
        ("trtllm", "1.2.0", {"kvcache_dtype": "fp8"}, "--extra_llm_api_options llm_options.yaml"),
        ("trtllm", "1.3.0rc5", {"kvcache_dtype": "fp8"}, "--kv_cache_dtype fp8"),
        ("TensorRT-LLM", "1.2.0", {"gemm_dtype": "bfloat16"}, "--extra_llm_api_options llm_options.yaml"),
    ],
)
def test_versions(engine, version, config, line):
    made = quiet(engine, config, engine_version=version)
    assert made.to_shell() == line
    assert line or made.warnings


def test_old_tensorrt_reads_the_cache_dtype_from_yaml():
    made = quiet("trtllm", {"kvcache_dtype": "fp8", "gemm_dtype": "bfloat16"}, engine_version="1.1.0")
    assert made.yaml_text() == "dtype: bfloat16\nkv_cache_config:\n  dtype: fp8\n"
    assert quiet("trtllm", {"kvcache_dtype": "fp8"}, {"kv-cache-dtype": "auto"}, engine_version="1.1.0").yaml == {}


@pytest.mark.parametrize("bad", ["", "new", "x1.2", "1..2", None.__class__])
def test_bad_versions(bad):
    with pytest.raises(InputError):
        launch_args("vllm", engine_version=bad)


def test_versions_are_ordered():
    texts = ["0.9", "0.10.0rc1", "0.10.0rc2", "0.10", "0.10.0.post1", "0.10.1", "1.0"]
    assert sorted(texts, key=parse_version) == texts
    assert parse_version("0.10") == parse_version("v0.10.0")


# ---------------------------------------------------------------- presets


def test_presets_on_engines():
    lines = {(e, p): quiet(e, p).to_shell() for e in ENGINES for p in PRESETS}
    assert {e: lines[e, "default"] for e in ENGINES} == dict.fromkeys(ENGINES, "")
    assert lines["vllm", "dynamic-fp8"] == "--quantization fp8_per_tensor --kv-cache-dtype fp8_e4m3"
    assert lines["sglang", "dynamic-fp8"] == "--quantization fp8 --kv-cache-dtype fp8_e4m3"
    assert lines["trtllm", "dynamic-fp8"] == "--kv_cache_dtype fp8"
    assert lines["vllm", "bf16-stable"] == "--dtype bfloat16 --kv-cache-dtype fp8_e4m3"
    for engine in ENGINES:  # no engine quantises experts to W4AFP8 while it loads them
        with pytest.raises(InputError, match="w4afp8"):
            launch_args(engine, "aggressive-moe", unsupported="error")


def test_no_preset_uses_e5m2():
    assert not any("e5m2" in v for p in PRESETS.values() for v in p.to_dict().values())


def test_several_configurations_are_not_one():
    with pytest.raises(InputError, match="2 configurations"):
        launch_args("vllm", {"presets": ["default", "kv-cache-fp8"]})


def test_own_presets():
    mine = {"mine": {"kvcache_dtype": "fp8"}}
    assert launch_args("vllm", {"preset": "mine"}, presets=mine).to_shell() == "--kv-cache-dtype fp8"
    with pytest.raises(UnknownNameError):
        launch_args("vllm", "mine")


# ---------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    "checkpoint",
    [
        get_model("Qwen/Qwen3-32B-FP8"),
        "openai/gpt-oss-20b",
        {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}},
        {"text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}}},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quantization_config": {"quant_method": "mxfp4"}},
        {"quantization_config": {"load_in_4bit": True}},
        {"quantization_config": {"quant_method": "a-stranger"}},
        "someone/llama-q4_k_m.gguf",
        "someone/Llama-3-70B-AWQ",
        "nvidia/Qwen3-235B-A22B-NVFP4",
    ],
)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_quantised_checkpoint_keeps_its_weights_but_takes_the_cache(checkpoint, engine):
    made = quiet(engine, {"gemm_dtype": "fp8", "kvcache_dtype": "fp8"}, checkpoint=checkpoint)
    assert any(w.startswith("gemm_dtype = fp8 is dropped") for w in made.warnings)
    assert set(made.derived.values()) == {"kvcache_dtype"}
    assert not any("quantization" in flag for flag in made.args)


def test_what_is_dropped_is_warned_about():
    with pytest.warns(MfuroofWarning, match="gemm_dtype = fp8 is dropped"):
        launch_args("vllm", {"gemm_dtype": "fp8"}, checkpoint="Qwen/Qwen3-32B-FP8")


def test_formats_an_engine_has_given_up():
    assert "plugin" in quiet("vllm", None, checkpoint="x/llama-q4_k_m.gguf").warnings[0]
    assert quiet("vllm", None, checkpoint="x/llama-q4_k_m.gguf", engine_version="0.20.2").warnings == ()
    assert quiet("sglang", None, checkpoint="x/llama-q4_k_m.gguf").warnings == ()


def test_a_name_that_says_nothing_is_no_obstacle():
    made = launch_args("vllm", {"gemm_dtype": "fp8"}, checkpoint="someone/Some-Model")
    assert made.derived == {"--quantization": "gemm_dtype"} and "only its name was read" in made.notes[0]


@pytest.mark.parametrize("bad", [3, "", ["a"]])
def test_bad_checkpoints(bad):
    with pytest.raises(InputError):
        detect(bad)


def test_precision_is_read_where_the_architecture_cannot_be(tmp_path):
    strange = {"hidden_size": "wide", "text_config": {"quantization_config": {"quant_method": "awq", "bits": 4}}}
    assert detect(strange).method == "awq" and detect(strange).is_moe is None
    (tmp_path / "config.json").write_text(json.dumps(strange))
    assert detect(tmp_path).method == "awq" and detect(str(tmp_path / "config.json")).name == tmp_path.name
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": "wide"}))
    assert not detect(tmp_path).quantised
    (tmp_path / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": "FP8"}}))
    assert detect(tmp_path).method == "modelopt"
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(InputError):
        detect(tmp_path)


def test_detection(tmp_path):
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert detect(config).compute_class == "fp8" and detect({}).method == "none" and not detect(None).quantised
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert detect(tmp_path / "model.gguf").method == "gguf"
    own = get_model("Qwen/Qwen3-8B")
    assert detect(own.with_precision(weight_dtype="fp8")).quantised
    assert not detect(own.with_precision(weight_dtype="fp16")).quantised
    assert detect("nvidia/Qwen3-235B-A22B-NVFP4").kv_quantised and "modelopt" in detect(
        "nvidia/Qwen3-235B-A22B-NVFP4"
    ).summary()


def test_e5m2_on_an_fp8_checkpoint():
    made = quiet("vllm", {"kvcache_dtype": "fp8_e5m2"}, checkpoint="Qwen/Qwen3-32B-FP8")
    assert made.args == {} and any("FP8 checkpoint" in w for w in made.warnings)
    assert quiet("sglang", {"kvcache_dtype": "fp8_e5m2"}, checkpoint="Qwen/Qwen3-32B-FP8").args


def test_a_16_bit_cache_on_a_checkpoint_that_brings_its_own():
    made = quiet("vllm", {"kvcache_dtype": "bfloat16"}, checkpoint="nvidia/Qwen3-235B-A22B-NVFP4")
    assert made.args == {} and "fp8 cache of the checkpoint" in made.warnings[0]


def test_fp8_attention_follows_the_cache():
    made = launch_args("vllm", {"attention_dtype": "fp8", "kvcache_dtype": "fp8"})
    assert made.to_shell() == "--kv-cache-dtype fp8" and any("attention_dtype" in n for n in made.notes)
    assert launch_args("sglang", {"attention_dtype": "fp8"}, checkpoint="nvidia/Qwen3-235B-A22B-NVFP4").notes


def test_experts_beside_other_layers():
    both = {"gemm_dtype": "fp8", "moe_dtype": "mxfp4"}
    line = """--quantization fp8_per_tensor --quantization-config '{"moe":"mxfp4"}'"""
    assert launch_args("vllm", both).to_shell() == line
    made = quiet("sglang", both)
    assert made.to_shell() == "--quantization fp8" and "moe_dtype = mxfp4" in made.warnings[0]
    made = quiet("vllm", {"gemm_dtype": "fp8", "moe_dtype": "bfloat16"})
    assert made.to_shell() == "--quantization fp8_per_tensor" and "moe_dtype = bfloat16" in made.warnings[0]
    dense = quiet("vllm", {"moe_dtype": "fp8"}, checkpoint="Qwen/Qwen3-8B")
    assert dense.args == {} and "no routed experts" in dense.warnings[0]


def test_hardware_notes():
    assert any("a100" in n for n in launch_args("vllm", {"gemm_dtype": "fp8"}, hardware="a100_sxm").notes)
    assert launch_args("vllm", {"gemm_dtype": "fp8"}, hardware="h100_sxm").notes == ()
    assert launch_args("vllm", {"gemm_dtype": "mxfp8"}, hardware="h100_sxm").notes
    assert "saves bytes alone" in launch_args("vllm", {"kvcache_dtype": "fp8"}, hardware="a100_sxm").notes[0]


# ---------------------------------------------------------------- the user's arguments


configs = st.builds(RuntimePrecision, **{name: st.sampled_from(values) for name, values in ALLOWED.items()})
OPTIONS = ("kv-cache-dtype", "quantization", "dtype", "quantization-config", "max-model-len", "config")


@st.composite
def spellings(draw):
    """Return a mapping of options in any spelling to values."""
    chosen = draw(st.lists(st.sampled_from(OPTIONS), unique=True))
    out = {}
    for option in chosen:
        spelt = draw(st.sampled_from([option, option.replace("-", "_")]))
        spelt = draw(st.sampled_from(["", "--"])) + spelt
        out[spelt] = draw(st.text("abcxyz09", min_size=1) | st.integers(0, 9) | st.sampled_from([True, False, None]))
    return out


@given(st.sampled_from(sorted(ENGINES)), configs, spellings())
def test_the_user_always_wins(engine, config, user):
    made = quiet(engine, config, user)
    for name, value in user.items():
        mine = [v for flag, v in made.args.items() if flag_key(flag) == flag_key(name)]
        assert mine == [value]
        assert flag_key(name) not in {flag_key(k) for k in made.derived}
        assert flag_key(name) not in {flag_key(k) for k in made.yaml}
    keys = [flag_key(flag) for flag in made.args]
    assert len(keys) == len(set(keys))
    flags = [w for w in made.to_list() if w.startswith("--")]
    assert len({flag_key(f) for f in flags}) == len(flags)
    assert shlex.split(made.to_shell()) == made.to_list()


@given(st.sampled_from(sorted(ENGINES)), configs)
def test_no_field_is_ignored_silently(engine, config):
    made = quiet(engine, config)
    said = " ".join((*made.notes, *made.warnings))
    for field, value in config.given().items():
        assert field in made.derived.values() or f"{field} = {value}" in said


@given(spellings())
def test_a_list_of_words_is_read_like_a_mapping(user):
    words = []
    for name, value in user.items():
        if value is not None and value is not False:
            words += ["--" + name.lstrip("-"), *([] if value is True else [str(value)])]
    read = read_user_args(words)
    assert {flag_key(k): v for k, v in read.items()} == {
        flag_key(k): v if v is True else str(v) for k, v in user.items() if v is not None and v is not False
    }


@pytest.mark.parametrize(
    ("given_args", "line"),
    [
        ({"kv_cache_dtype": "auto"}, "--kv-cache-dtype auto"),
        (["--kv-cache-dtype=auto"], "--kv-cache-dtype auto"),
        ("--kv_cache_dtype auto --port 8000", "--kv_cache_dtype auto --port 8000"),
        ({"kv_cache_dtype": None}, ""),
        ({"enable_prefix_caching": True}, "--kv-cache-dtype fp8_e4m3 --enable-prefix-caching"),
        (["--x", "-1", "--y", "a", "b"], "--kv-cache-dtype fp8_e4m3 --x -1 --y a b"),
    ],
)
def test_user_arguments(given_args, line):
    assert launch_args("vllm", "kv-cache-fp8", given_args).to_shell() == line


def test_aliases_of_options():
    assert launch_args("vllm", {"gemm_dtype": "fp8"}, ["-q", "awq"]).to_shell() == "-q awq"
    dotted = launch_args("vllm", {"moe_dtype": "fp8"}, {"quantization_config.moe": "mxfp8"})
    assert dotted.to_shell() == "--quantization-config.moe mxfp8"
    made = quiet("trtllm", {"gemm_dtype": "bfloat16"}, {"extra_llm_api_options": "mine.yaml"})
    assert made.to_shell() == "--extra_llm_api_options mine.yaml"
    assert made.yaml == {"dtype": "bfloat16"} and "add to it" in made.warnings[-1]


def test_twice_the_same_option():
    with pytest.raises(InputError, match="one value"):
        launch_args("vllm", None, {"a-b": 1, "--a_b": 2})
    with pytest.warns(MfuroofWarning, match="twice"):
        assert launch_args("vllm", None, ["--a", "1", "--a", "2"]).args == {"--a": "2"}


@pytest.mark.parametrize("bad", ["8000", ["x", "--y"], 7, {"--": 1}, "--a 'b", ["--"]])
def test_bad_user_arguments(bad):
    with pytest.raises(InputError):
        launch_args("vllm", None, bad)


def test_forms():
    made = launch_args("vllm", {"moe_dtype": "fp8"}, {"tensor_parallel_size": 2})
    assert json.loads(made.to_list()[1]) == {"moe": "fp8_per_tensor"}
    assert made.to_dict() == {"--quantization-config": {"moe": "fp8_per_tensor"}, "--tensor-parallel-size": 2}
    assert made.command("Qwen/Qwen3-30B-A3B").startswith("vllm serve Qwen/Qwen3-30B-A3B --quantization-config")
    assert launch_args("sglang", None).command("m") == "python -m sglang.launch_server --model-path m"
    assert "vLLM 0.33.0" in made.summary()


@pytest.mark.parametrize("bad", [("exllama", None), ("vllm", "fast"), ("vllm", {"gemm_dtype": "fp9"}), ("vllm", 3)])
def test_unknown_things(bad):
    with pytest.raises((InputError, UnknownNameError)):
        launch_args(*bad)


# ---------------------------------------------------------------- expansion


@given(st.lists(st.sampled_from(sorted(PRESETS)), min_size=1), st.sampled_from([None, *ALLOWED["gemm_dtype"]]))
def test_expansion_counts(names, gemm):
    fields = {} if gemm is None else {"gemm_dtype": gemm}
    out = expand({"presets": names, **fields})
    assert len(out) == len(names)
    for name, config in zip(names, out, strict=True):
        expected = PRESETS[name].to_dict() | fields
        assert config.precision.to_dict() == expected and config.name.startswith(name)
    assert expand([{"preset": n, **fields} for n in names]) == out


@pytest.mark.parametrize(
    "bad",
    [
        {"preset": "default", "presets": ["default"]},
        {"presets": []},
        {"presets": "default"},
        {"presets": 3},
        {"preset": "slow"},
        {"preset": "default", "kv_dtype": "fp8"},
        [],
    ],
)
def test_bad_requests(bad):
    with pytest.raises((InputError, UnknownNameError)):
        expand(bad)


@pytest.mark.parametrize(
    ("engine", "version", "known"),
    [("vllm", "0.33.0", True), ("vllm", "0.20", True), ("vllm", "0.34", False), ("vllm", "0.19.1", False),
     ("sglang", "0.5.9.post1", True), ("trtllm", "1.2.0", False), ("trtllm", None, True)],
)  # fmt: skip
def test_versions_that_nobody_read_are_said_to_be_so(engine, version, known):
    notes = launch_args(engine, None, engine_version=version).notes
    assert notes == () if known else "options were read from" in notes[0]


def test_what_no_engine_runs_on_a_device_is_refused_there():
    for device, able in (("h100_sxm", False), ("b200_sxm", True)):
        made = quiet("vllm", {"kvcache_dtype": "nvfp4"}, hardware=device)
        assert (made.to_shell() == "--kv-cache-dtype nvfp4") is able and (made.refused == ()) is able
    with pytest.raises(InputError, match="h100_sxm has none"):
        launch_args("vllm", {"kvcache_dtype": "nvfp4"}, hardware="h100_sxm", unsupported="error")
    still = quiet("sglang", {"kvcache_dtype": "nvfp4"}, "--kv-cache-dtype nvfp4", hardware="h100_sxm")
    assert still.to_shell() == "--kv-cache-dtype nvfp4"  # the user's stays
