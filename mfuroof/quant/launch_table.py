"""What each engine accepts: one row per field, value and range of versions.

Read from the engines' own argument parsers and documentation (vLLM 0.20 to 0.33, SGLang 0.5.9 and 0.5.23,
TensorRT-LLM 1.3.0rc). A combination without a row is unknown to the engine: it is reported, never guessed. Adding an
engine or a version is adding rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field as default
from types import MappingProxyType
from typing import Any, Literal

__all__ = ["DROPPED_METHODS", "ENGINES", "NEWEST", "RULES", "Engine", "Rule"]


@dataclass(frozen=True, slots=True)
class Engine:
    """How an engine is started.

    Attributes
    ----------
    name, title
        Identifier, and how its makers write it.
    oldest, newest
        First and last version that the table was read from; the last is assumed where none is given.
    command
        Words before the model, and the option that names it (empty: a positional argument).
    separator
        What stands between the words of its options.
    aliases
        Other spellings of options, normalised.
    """

    name: str
    title: str
    oldest: str
    newest: str
    command: tuple[str, ...]
    model_option: str = ""
    separator: Literal["-", "_"] = "-"
    aliases: Mapping[str, str] = default(default_factory=dict)


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        e.name: e
        for e in (
            Engine("vllm", "vLLM", "0.20", "0.33.0", ("vllm", "serve"), aliases={"q": "quantization"}),
            Engine("sglang", "SGLang", "0.5.9", "0.5.23", ("python", "-m", "sglang.launch_server"), "--model-path"),
            Engine(
                "trtllm",
                "TensorRT-LLM",
                "1.3.0rc0",
                "1.3.0rc0",
                ("trtllm-serve",),
                separator="_",
                aliases={"extra-llm-api-options": "config"},
            ),
        )
    }
)
"""Engines by name."""

NEWEST = {name: engine.newest for name, engine in ENGINES.items()}


@dataclass(frozen=True, slots=True)
class Rule:
    """What one value of one field means to one engine.

    Attributes
    ----------
    since, until
        Versions: from the first one (included) to the second (excluded); empty for no limit.
    flags, yaml
        Options on the command line, and keys of the engine's YAML file.
    outcome
        ``"emit"``; ``"follows"`` where nothing need be said because the engine does it anyway; ``"unsupported"``.
    note
        Why, or what to know.
    source
        Where it stands.
    """

    engine: str
    field: str
    value: str
    flags: Mapping[str, Any] = default(default_factory=dict)
    since: str = ""
    until: str = ""
    yaml: Mapping[str, Any] = default(default_factory=dict)
    outcome: Literal["emit", "follows", "unsupported"] = "emit"
    note: str = ""
    source: str = ""


_VLLM_ARGS = "vllm/engine/arg_utils.py, vllm/config/cache.py"
_VLLM_ONLINE = "vLLM docs, features/quantization/online"
_VLLM_MXFP8 = "vLLM docs 0.18.2 and 0.20.0, vllm.model_executor.layers.quantization.mxfp8; pull request 35448"
_SGLANG_ARGS = "sglang/srt/server_args.py"
_TRT_SERVE = "tensorrt_llm/commands/serve.py"
_TRT_YAML = "tensorrt_llm/llmapi/llm_args.py"
_CHECKPOINT = "only from a checkpoint quantised beforehand"


def _no(engine: str, name: str, values: str, note: str, source: str, since: str = "", until: str = "") -> list[Rule]:
    return [
        Rule(engine, name, v, since=since, until=until, outcome="unsupported", note=note, source=source)
        for v in values.split()
    ]


def _yes(engine: str, name: str, flag: str, values: Mapping[str, Any], source: str, since: str = "", until: str = "",
         note: str = "") -> list[Rule]:
    return [Rule(engine, name, v, {flag: x}, since, until, note=note, source=source) for v, x in values.items()]


_SAME = {"float16": "float16", "bfloat16": "bfloat16", "float32": "float32"}

_VLLM = [
    *_yes("vllm", "gemm_dtype", "--dtype", _SAME, _VLLM_ARGS),
    *_yes("vllm", "gemm_dtype", "--quantization", {"fp8": "fp8"}, _VLLM_ARGS, until="0.20.2"),
    *_yes("vllm", "gemm_dtype", "--quantization", {"fp8": "fp8_per_tensor"}, _VLLM_ONLINE, since="0.20.2"),
    *_yes("vllm", "gemm_dtype", "--quantization", {"mxfp8": "mxfp8"}, _VLLM_MXFP8, since="0.20"),
    *_yes("vllm", "gemm_dtype", "--quantization", {"mxfp8": "mxfp8"}, _VLLM_MXFP8, since="0.18.2", until="0.20",
          note="Blackwell only"),
    *_no("vllm", "gemm_dtype", "mxfp8", "not known before 0.18.2", _VLLM_MXFP8, until="0.18.2"),
    *_yes("vllm", "gemm_dtype", "--quantization", {"mxfp4": "mxfp4"}, _VLLM_ONLINE, since="0.29"),
    *_no("vllm", "gemm_dtype", "mxfp4", "no such online scheme before 0.29", _VLLM_ONLINE, until="0.29"),
    *_no("vllm", "gemm_dtype", "int8 nvfp4", _CHECKPOINT, _VLLM_ONLINE),
    *_yes("vllm", "kvcache_dtype", "--kv-cache-dtype",
          {"fp8": "fp8", "fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"}, _VLLM_ARGS),
    *_yes("vllm", "kvcache_dtype", "--kv-cache-dtype", {"int8": "int8_per_token_head"}, _VLLM_ARGS, since="0.20.2"),
    *_no("vllm", "kvcache_dtype", "int8", "no such cache before 0.20.2", _VLLM_ARGS, until="0.20.2"),
    *_yes("vllm", "kvcache_dtype", "--kv-cache-dtype", {"int4": "int4_per_token_head"}, _VLLM_ARGS, since="0.27"),
    *_no("vllm", "kvcache_dtype", "int4", "no such cache before 0.27", _VLLM_ARGS, until="0.27"),
    *_yes("vllm", "kvcache_dtype", "--kv-cache-dtype", {"nvfp4": "nvfp4"}, _VLLM_ARGS, since="0.33",
          note="Blackwell only"),
    *_no("vllm", "kvcache_dtype", "nvfp4", "not known before 0.33", _VLLM_ARGS, until="0.33"),
    *_no("vllm", "kvcache_dtype", "mxfp8", "not among its cache dtypes", _VLLM_ARGS),
    *_yes("vllm", "moe_dtype", "--quantization-config",
          {"fp8": {"moe": "fp8_per_tensor"}, "mxfp8": {"moe": "mxfp8"}, "mxfp4": {"moe": "mxfp4"},
           "int8": {"moe": "int8_per_channel_weight_only"}, "nvfp4": {"moe": "nvfp4_per_token"}},
          _VLLM_ONLINE, since="0.24"),
    *_no("vllm", "moe_dtype", "fp8 mxfp8 mxfp4 int8 nvfp4", "experts have no scheme of their own before 0.24",
         _VLLM_ONLINE, until="0.24"),
    *_no("vllm", "moe_dtype", "w4afp8", _CHECKPOINT, _VLLM_ONLINE),
]

_SGLANG = [
    *_yes("sglang", "gemm_dtype", "--dtype", _SAME, _SGLANG_ARGS),
    *_yes("sglang", "gemm_dtype", "--quantization", {"fp8": "fp8", "mxfp8": "mxfp8"}, _SGLANG_ARGS),
    *_yes("sglang", "gemm_dtype", "--quantization", {"mxfp4": "mxfp4"}, _SGLANG_ARGS,
          note="quantises experts only; other linear layers stay 16-bit"),
    *_no("sglang", "gemm_dtype", "int8", f"w8a8_int8 {_CHECKPOINT}", _SGLANG_ARGS),
    *_no("sglang", "gemm_dtype", "nvfp4", _CHECKPOINT, _SGLANG_ARGS),
    *_yes("sglang", "kvcache_dtype", "--kv-cache-dtype",
          {"bfloat16": "bfloat16", "fp8": "fp8_e4m3", "fp8_e4m3": "fp8_e4m3", "fp8_e5m2": "fp8_e5m2"},
          _SGLANG_ARGS),
    *_yes("sglang", "kvcache_dtype", "--kv-cache-dtype", {"nvfp4": "fp4_e2m1"}, _SGLANG_ARGS, until="0.5.10"),
    *_no("sglang", "kvcache_dtype", "nvfp4", "its spelling changed between 0.5.9 and 0.5.23; give it yourself",
         _SGLANG_ARGS, since="0.5.10", until="0.5.23"),
    *_no("sglang", "kvcache_dtype", "mxfp8", "not known before 0.5.23", _SGLANG_ARGS, until="0.5.23"),
    *_yes("sglang", "kvcache_dtype", "--kv-cache-dtype", {"nvfp4": "nvfp4", "mxfp8": "mxfp8"}, _SGLANG_ARGS,
          since="0.5.23"),
    *_no("sglang", "kvcache_dtype", "int8 int4", "not among its cache dtypes", _SGLANG_ARGS),
    *_yes("sglang", "moe_dtype", "--quantization", {"mxfp4": "mxfp4"}, _SGLANG_ARGS, note="quantises experts only"),
    *_no("sglang", "moe_dtype", "fp8 mxfp8 int8 nvfp4",
         "experts have no dtype of their own; --moe-runner-backend chooses a kernel", _SGLANG_ARGS),
    *_no("sglang", "moe_dtype", "w4afp8", f"w4afp8 {_CHECKPOINT}", _SGLANG_ARGS),
]

_TRTLLM = [
    *[Rule("trtllm", "gemm_dtype", v, yaml={"dtype": v}, source=_TRT_YAML) for v in _SAME],
    *_no("trtllm", "gemm_dtype", "fp8 int8 mxfp8 mxfp4 nvfp4", _CHECKPOINT, _TRT_SERVE),
    *_yes("trtllm", "kvcache_dtype", "--kv_cache_dtype", {"fp8": "fp8", "fp8_e4m3": "fp8", "nvfp4": "nvfp4"},
          f"{_TRT_SERVE}, pull request 11487", since="1.3.0rc0"),
    *[
        Rule("trtllm", "kvcache_dtype", v, until="1.3.0rc0", yaml={"kv_cache_config": {"dtype": "fp8"}},
             source=_TRT_YAML)
        for v in ("fp8", "fp8_e4m3")
    ],
    *_no("trtllm", "kvcache_dtype", "nvfp4", f"before 1.3 {_CHECKPOINT}", _TRT_SERVE, until="1.3.0rc0"),
    *_no("trtllm", "kvcache_dtype", "fp8_e5m2 int8 int4 mxfp8", "not among its cache dtypes", _TRT_SERVE),
    *_no("trtllm", "moe_dtype", "fp8 w4afp8 mxfp4 int8 mxfp8 nvfp4", _CHECKPOINT, _TRT_YAML),
]

_FOLLOWS_MODEL = "a 16-bit cache is what the engine keeps for a 16-bit model"
_FOLLOWS_KV = "no option: attention runs in FP8 where the KV cache is FP8"
_COMMON = [
    rule
    for engine, source in (("vllm", _VLLM_ARGS), ("sglang", _SGLANG_ARGS), ("trtllm", _TRT_SERVE))
    for rule in (
        *(
            Rule(engine, "kvcache_dtype", v, outcome="follows", note=_FOLLOWS_MODEL, source=source)
            for v in ("fp16", "bfloat16")
            if (engine, v) != ("sglang", "bfloat16")
        ),
        *(
            Rule(engine, "attention_dtype", v, outcome="follows", note=_FOLLOWS_KV, source=source)
            for v in ("float16", "bfloat16", "fp8", "fp8_e4m3")
        ),
        *_no(engine, "attention_dtype", "fp8_e5m2 fp8_block", "no attention kernel computes in it", source),
        *(
            Rule(engine, "moe_dtype", v, outcome="follows", note="experts keep the dtype of the model", source=source)
            for v in ("float16", "bfloat16")
        ),
    )
]

RULES: tuple[Rule, ...] = (*_VLLM, *_SGLANG, *_TRTLLM, *_COMMON)
"""Every row."""

DROPPED_METHODS: Mapping[tuple[str, str], tuple[str, str]] = MappingProxyType(
    {
        ("vllm", "gguf"): ("0.24", "GGUF files need the plugin vllm-gguf-plugin (pull request 39612)"),
        ("vllm", "bitsandbytes"): ("0.28", "bitsandbytes checkpoints are no longer loaded"),
    }
)
"""Checkpoint formats an engine has given up, by engine and method: since which version, and what to know."""
