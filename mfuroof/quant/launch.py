"""Launch arguments: what to tell an engine so that it runs in a precision."""

from __future__ import annotations

import json
import shlex
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mfuroof._boundary import choice
from mfuroof.errors import InputError, MfuroofWarning, Problem
from mfuroof.hardware import Hardware
from mfuroof.precision.presets import Request, expand
from mfuroof.precision.runtime import AUTO, E5M2_WARNING, RuntimePrecision, dropped
from mfuroof.quant.checkpoint import Checkpoint, detect
from mfuroof.quant.gates import blocked_fields, hardware_notes
from mfuroof.quant.launch_table import DROPPED_METHODS, ENGINES, RULES, Engine, Rule
from mfuroof.quant.user_args import UserArgs, flag_key, read_user_args, tokens_of
from mfuroof.quant.versions import parse_version, within

__all__ = ["LaunchArgs", "engine_of", "launch_args"]

_ENGINE_NAMES = {"tensorrt_llm": "trtllm", "tensorrtllm": "trtllm", "trt_llm": "trtllm", "trt": "trtllm"}
_SIXTEEN = ("float16", "bfloat16", "float32", AUTO)
CONFIG_FILE = "llm_options.yaml"
"""Name under which `LaunchArgs` refers to the YAML options, unless another is given."""


@dataclass(frozen=True)
class LaunchArgs:
    """Arguments of one engine for one precision, those of the user included.

    Attributes
    ----------
    engine, engine_version
        Engine, and the version the spellings are of.
    name
        Of the configuration.
    args
        Value by option, ready to pass on; True stands for an option without value, False and None for one that the
        user does not want.
    yaml
        Options that the engine only reads from a YAML file (TensorRT-LLM).
    derived
        Options of ``args`` and ``yaml`` that come from the configuration, with the field they stand for.
    notes
        What needs no action.
    warnings
        What could not be done, and what to look out for.
    refused
        Those of the warnings that say what this engine cannot do; with none of them it can be launched so.
    """

    engine: str
    engine_version: str
    name: str
    args: Mapping[str, Any]
    yaml: Mapping[str, Any] = field(default_factory=dict)
    derived: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return a copy of ``args``."""
        return dict(self.args)

    def to_list(self, config_file: str = CONFIG_FILE) -> list[str]:
        """Return words of a command line; ``config_file`` is where `yaml_text` will have been written."""
        return tokens_of(self._with_config(config_file))

    def to_shell(self, config_file: str = CONFIG_FILE) -> str:
        """Return one quoted line for a shell."""
        return shlex.join(self.to_list(config_file))

    def command(self, model: str, config_file: str = CONFIG_FILE) -> str:
        """Return the whole line that starts the engine with ``model``."""
        engine = ENGINES[self.engine]
        start = [*engine.command, *([engine.model_option] if engine.model_option else []), model]
        return shlex.join([*start, *self.to_list(config_file)])

    def yaml_text(self) -> str:
        """Return the YAML file, or an empty text where none is needed."""
        return "".join(_yaml_lines(self.yaml))

    def summary(self) -> str:
        """Return arguments, notes and warnings in words."""
        lines = [f"{ENGINES[self.engine].title} {self.engine_version}, {self.name}: {self.to_shell() or 'no argument'}"]
        lines += [f"  {CONFIG_FILE}: {json.dumps(dict(self.yaml))}"] if self.yaml else []
        lines += [f"  note: {text}" for text in self.notes]
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def _with_config(self, config_file: str) -> dict[str, Any]:
        aliases = ENGINES[self.engine].aliases
        taken = {aliases.get(flag_key(k), flag_key(k)) for k in self.args}
        if not self.yaml or "config" in taken:
            return dict(self.args)
        old = not within(parse_version(self.engine_version), "1.3.0rc0", "")
        return {("--extra_llm_api_options" if old else "--config"): config_file, **self.args}


def engine_of(name: Any) -> Engine:
    """Return an engine by any spelling of its name; raise `UnknownNameError` naming the nearest otherwise."""
    key = str(name).strip().lower().replace("-", "_").replace(" ", "_")
    return ENGINES[choice("engine", _ENGINE_NAMES.get(key, key), ENGINES)]


def launch_args(
    engine: str,
    quant_config: Request = None,
    user_args: UserArgs = None,
    *,
    checkpoint: Any = None,
    engine_version: str | None = None,
    hardware: Hardware | str | None = None,
    unsupported: Literal["warn", "error"] = "warn",
    presets: Mapping[str, Any] | None = None,
) -> LaunchArgs:
    """Return the arguments that make an engine run in a precision.

    Parameters
    ----------
    engine
        ``"vllm"``, ``"sglang"`` or ``"trtllm"`` (``trtllm-serve``).
    quant_config
        What stands for one configuration; see `expand`.
    user_args
        The user's own arguments: a mapping, a list of words, or a text. They are passed on unchanged and win over
        whatever the configuration says: ``--kv-cache-dtype``, ``kv-cache-dtype`` and ``kv_cache_dtype`` are one.
    checkpoint
        What `detect` takes. One that is quantised already keeps its weights: ``gemm_dtype`` and ``moe_dtype`` are
        dropped with a warning, ``kvcache_dtype`` still applies. None is taken for a 16-bit one.
    engine_version
        Such as ``"0.27.1"``; None for the newest that is known.
    hardware
        A device, for which to say what is not native on it, and to refuse what no engine runs there; None for nothing
        of the kind.
    unsupported
        Whether what the engine cannot do is a warning or an error. Nothing is invented in its place.
    presets
        Your own presets, as in `expand`.

    Raises
    ------
    UnknownNameError
        No such engine, preset or device.
    InputError
        Several configurations; no such version; or, with ``unsupported="error"``, what the engine cannot do.

    Examples
    --------
    >>> launch_args("vllm", "kv-cache-fp8", {"max_model_len": 8192}).to_shell()
    '--kv-cache-dtype fp8_e4m3 --max-model-len 8192'
    >>> launch_args("sglang", "kv-cache-fp8", "--kv_cache_dtype=auto").to_shell()
    '--kv_cache_dtype auto'
    """
    known = engine_of(engine)
    choice("unsupported", unsupported, ("warn", "error"))
    configs = expand(quant_config, presets)
    if len(configs) != 1:
        raise InputError(Problem("quant_config", f"{len(configs)} configurations", "one; take them from expand()"))
    version = known.newest if engine_version is None else str(engine_version).strip()
    parse_version(version)
    precision = configs[0].precision
    blocked = {} if hardware is None else blocked_fields(precision, hardware)
    draft = _Draft(known, version, precision, detect(checkpoint), blocked)
    draft.fill()
    if draft.refused and unsupported == "error":
        raise InputError(Problem(f"{known.title} {version}", text, "what it supports") for text in draft.refused)
    user = read_user_args(user_args, known.separator)
    args, yaml, derived = draft.merged(user)
    about = [draft.checkpoint.summary()] if draft.checkpoint.only_name else []
    if not parse_version(known.oldest) <= parse_version(version) <= parse_version(known.newest):
        read = " to ".join(dict.fromkeys((known.oldest, known.newest)))
        about.append(f"{known.title} {version}: options were read from {read}; compare them with its --help")
    there = () if hardware is None else hardware_notes(precision.replace(**dict.fromkeys(blocked, AUTO)), hardware)
    notes = (*about, *draft.notes, *there)
    refused = tuple(draft.refused)
    texts = (*draft.checkpoint.warnings, *draft.warnings, *refused)
    for text in texts:
        warnings.warn(f"{known.title}: {text}", MfuroofWarning, stacklevel=2)
    return LaunchArgs(known.name, version, configs[0].name, args, yaml, derived, notes, texts, refused)


class _Draft:
    """Options as they are found, field by field."""

    def __init__(
        self,
        engine: Engine,
        version: str,
        precision: RuntimePrecision,
        checkpoint: Checkpoint,
        blocked: Mapping[str, str],
    ) -> None:
        self.engine, self.version = engine, parse_version(version)
        self.checkpoint = checkpoint
        self.precision = precision.replace(**dict.fromkeys(blocked, AUTO))
        self.blocked = {name: f"{name} = {getattr(precision, name)}: {reason}" for name, reason in blocked.items()}
        self.flags: dict[str, Any] = {}
        self.yaml: dict[str, Any] = {}
        self.origin: dict[str, str] = {}
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.refused: list[str] = []

    def fill(self) -> None:
        """Go through the fields; each ends in an option, a note, a warning or a refusal."""
        since, text = DROPPED_METHODS.get((self.engine.name, self.checkpoint.method), ("", ""))
        if since and within(self.version, since, ""):
            self.refused.append(f"checkpoint quantised by {self.checkpoint.method}: since {since} {text}")
        self.refused += self.blocked.values()
        self._gemm()
        self._cache()
        self._attention()
        self._experts()

    def merged(self, user: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
        """Return (arguments, YAML options, origins), the user's in place of ours wherever both name an option."""
        aliases = self.engine.aliases
        taken = {aliases.get(flag_key(k), flag_key(k)) for k in user}
        flags = {k: v for k, v in self.flags.items() if flag_key(k) not in taken}
        yaml = {k: v for k, v in self.yaml.items() if flag_key(k) not in taken}
        if "kv-cache-dtype" in taken:
            yaml.pop("kv_cache_config", None)
        for key in (*self.flags, *self.yaml):
            if key not in flags and key not in yaml:
                self.notes.append(f"{self.origin[key]}: {key} is the user's")
        if yaml and "config" in taken:
            text = f"the user's own file is passed on; add to it: {json.dumps(yaml)}"
            self.warnings.append(text)
        kept = {k: self.origin[k] for k in (*flags, *yaml)}
        return {**flags, **user}, yaml, kept

    def _gemm(self) -> None:
        value = self.precision.gemm_dtype
        if value == AUTO:
            return
        if self.checkpoint.quantised:
            self.warnings.append(dropped("gemm_dtype", value, self._quantised_already()))
        else:
            self._apply("gemm_dtype", value)

    def _cache(self) -> None:
        value, checkpoint = self.precision.kvcache_dtype, self.checkpoint
        if value == AUTO:
            return
        if value in ("fp16", "bfloat16") and checkpoint.kv_quantised and self._rule("kvcache_dtype", value).outcome == (
            "follows"
        ):
            own = checkpoint.kv_dtype
            self.refused.append(f"kvcache_dtype = {value}: the engine takes the {own} cache of the checkpoint")
            return
        if value == "fp8_e5m2":
            fp8 = checkpoint.quantised and checkpoint.compute_class == "fp8"
            if self.engine.name == "vllm" and fp8:
                self.refused.append(f"kvcache_dtype = {value}: vLLM refuses it on an FP8 checkpoint")
                return
            if self._rule("kvcache_dtype", value).outcome == "emit":
                self.warnings.append(f"kvcache_dtype: {E5M2_WARNING}")
        self._apply("kvcache_dtype", value)

    def _attention(self) -> None:
        value = self.precision.attention_dtype
        if value == AUTO:
            return
        cache_fp8 = self._cache_is_fp8()
        if value in ("fp8", "fp8_e4m3") and not cache_fp8:
            text = f"attention_dtype = {value}: FP8 attention comes with an FP8 KV cache only; set kvcache_dtype"
            self.refused.append(text)
        elif value in ("float16", "bfloat16") and cache_fp8:
            text = f"attention_dtype = {value}: no option keeps attention at 16 bits beside an FP8 KV cache"
            self.refused.append(text)
        elif value in ("float16", "bfloat16"):
            self.notes.append(f"attention_dtype = {value}: attention keeps the dtype of model and cache")
        else:
            self._apply("attention_dtype", value)

    def _experts(self) -> None:
        value, gemm, checkpoint = self.precision.moe_dtype, self.precision.gemm_dtype, self.checkpoint
        if value == AUTO:
            return
        if checkpoint.quantised:
            self.warnings.append(dropped("moe_dtype", value, self._quantised_already()))
        elif checkpoint.is_moe is False:
            self.warnings.append(dropped("moe_dtype", value, "the model has no routed experts"))
        elif value == gemm and self.origin_of("gemm_dtype"):
            self.notes.append(f"moe_dtype = {value}: gemm_dtype covers experts")
        elif value in ("float16", "bfloat16") and gemm not in _SIXTEEN and self.origin_of("gemm_dtype"):
            self.refused.append(f"moe_dtype = {value}: gemm_dtype = {gemm} covers experts, and no option spares them")
        elif value in ("float16", "bfloat16") and gemm in ("float16", "bfloat16", "float32") and value != gemm:
            self.refused.append(f"moe_dtype = {value}: experts keep the dtype of the model, {gemm}")
        else:
            rule = self._rule("moe_dtype", value)
            taken = {flag_key(k): k for k in self.flags}
            clash = next((taken[flag_key(k)] for k in rule.flags if flag_key(k) in taken), "")
            if rule.outcome == "emit" and clash:
                self.refused.append(f"moe_dtype = {value}: {clash} stands for gemm_dtype = {gemm} already")
            else:
                self._apply("moe_dtype", value)

    def origin_of(self, name: str) -> str:
        """Return the option that stands for a field, or an empty text."""
        return next((key for key, value in self.origin.items() if value == name), "")

    def _cache_is_fp8(self) -> bool:
        value = self.precision.kvcache_dtype
        if value.startswith("fp8"):
            return bool(self.origin_of("kvcache_dtype"))
        return self.checkpoint.kv_dtype.startswith("fp8") and (value == AUTO or not self.origin_of("kvcache_dtype"))

    def _quantised_already(self) -> str:
        return f"the checkpoint is quantised already ({self.checkpoint.method})"

    def _rule(self, name: str, value: str) -> Rule:
        for rule in RULES:
            if (rule.engine, rule.field, rule.value) == (self.engine.name, name, value) and within(
                self.version, rule.since, rule.until
            ):
                return rule
        return Rule(self.engine.name, name, value, outcome="unsupported", note="no such option is known")

    def _apply(self, name: str, value: str) -> None:
        rule = self._rule(name, value)
        if rule.outcome == "unsupported":
            self.refused.append(f"{name} = {value} is not supported: {rule.note}")
            return
        if rule.outcome == "follows":
            self.notes.append(f"{name} = {value}: {rule.note}")
            return
        if rule.note:
            self.notes.append(f"{name} = {value}: {rule.note}")
        for target, options in ((self.flags, rule.flags), (self.yaml, rule.yaml)):
            for key, option in options.items():
                target[key] = option
                self.origin[key] = name


def _yaml_lines(options: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            lines += [f"{indent}{key}:\n", *_yaml_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {value}\n")
    return lines


