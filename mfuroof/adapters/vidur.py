"""Vidur: an execution-time predictor that prices each batch from its requests, without a change of Vidur's source.

``python -m mfuroof.adapters.vidur [Vidur's own options]`` runs Vidur with it. Vidur looks for no plug-ins, so the
predictor must be registered before it reads its command line; `register` does that in a program of one's own.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import field, make_dataclass
from functools import cache
from types import ModuleType
from typing import Any

from mfuroof.adapters.vidur_predictor import VidurPredictor
from mfuroof.errors import MfuroofError

__all__ = ["KEY", "main", "register"]

KEY = "mfuroof"
"""``--execution_time_predictor_config_type mfuroof``"""

_FIELDS = {
    "model": "Model that mfuroof prices: a registry id or a config.json; empty for the architecture Vidur has.",
    "hardware": "GPU of mfuroof's catalogue; empty for the one that Vidur's device name stands for.",
    "cost": "Cost family: kernels, mfu_table or constant_mfu.",
    "engine": "Serving engine whose kernels are used: vllm, sglang, trtllm.",
    "weight_dtype": "Format of the weights; empty for the checkpoint's own.",
    "kv_dtype": "Format of the KV cache; empty for the checkpoint's own.",
}
_DEFAULTS = {"cost": "kernels", "engine": "vllm"}


class _Key(str):
    """A key of Vidur's registries: it asks for a hash, an order of equality and a text, and its enums cannot grow."""

    __slots__ = ()

    @property
    def name(self) -> str:
        """The key in capitals, as members of its enums are named."""
        return str(self).upper()


@cache
def register() -> tuple[type, type]:
    """Make and register the configuration and the predictor; again, the same two.

    Returns
    -------
    tuple
        ``MfuroofExecutionTimePredictorConfig``, a subclass of Vidur's base configuration with the fields ``model,
        hardware, cost, engine, weight_dtype, kv_dtype``, and ``MfuroofExecutionTimePredictor``.

    Raises
    ------
    MfuroofError
        Vidur is not installed.
    """
    config, predictors = _vidur("vidur.config"), _vidur("vidur.execution_time_predictor")
    base = predictors.BaseExecutionTimePredictor
    key = _Key(KEY)
    fields = [
        (name, str, field(default=_DEFAULTS.get(name, ""), metadata={"help": text})) for name, text in _FIELDS.items()
    ]
    config_class = make_dataclass(
        "MfuroofExecutionTimePredictorConfig",
        fields,
        bases=(config.BaseExecutionTimePredictorConfig,),
        namespace={"get_type": staticmethod(lambda: key), "__module__": __name__},
    )
    predictor = type("MfuroofExecutionTimePredictor", (VidurPredictor, base), {"__module__": __name__})
    predictor.execution_time = staticmethod(_execution_time())  # type: ignore[attr-defined]
    predictor.__abstractmethods__ = frozenset()  # type: ignore[attr-defined] # others in each fork, none is called
    predictors.ExecutionTimePredictorRegistry.register(key, predictor)
    return config_class, predictor


def _execution_time() -> Callable[[dict[str, float], int], Any]:
    """Return what makes an execution time from slots: compiled in newer versions, a Python class in others."""
    names: list[str] | None = None
    try:
        made = _vidur("vidur._native.entities").ExecutionTime
    except MfuroofError:
        made = _vidur("vidur.entities").ExecutionTime
        names = [n for n in inspect.signature(made.__init__).parameters if n != "self"]

    def make(slots: dict[str, float], layers: int) -> Any:
        values = {"num_layers_per_pipeline_stage": layers, **slots}
        if names is not None:  # forks have more terms: CPU time of the scheduler and the like, which are in ours
            values = {name: values.get(name, 0.0) for name in names}
        return made(**values)

    return make


def _vidur(name: str) -> ModuleType:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MfuroofError(
            f"Vidur cannot be imported ({error}); install it with: pip install 'mfuroof[vidur]'"
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run Vidur with this predictor; arguments are Vidur's own.

    Unless they say otherwise, the predictor is ours and no plots are drawn (they need a browser).
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        register()
        run = _vidur("vidur.main").main
    except MfuroofError as error:
        print(f"mfuroof: error: {error}", file=sys.stderr)
        return 2
    names = {a.split("=")[0] for a in given}
    if "--execution_time_predictor_config_type" not in names:
        given += ["--execution_time_predictor_config_type", KEY]
    if not names & {"--metrics_config_store_plots", "--no-metrics_config_store_plots"}:
        given += ["--no-metrics_config_store_plots"]
    before, sys.argv = sys.argv, ["vidur", *given]
    try:
        run()
    except MfuroofError as error:
        print(f"mfuroof: error: {error}", file=sys.stderr)
        return 2
    finally:
        sys.argv = before
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
