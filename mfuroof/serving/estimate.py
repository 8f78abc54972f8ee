"""`estimate`: TTFT, TPOT and throughput of many configurations at once, in closed form."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from mfuroof._boundary import Problems
from mfuroof._types import F64, U8, freeze
from mfuroof.capacity import KvCapacity, kv_capacity
from mfuroof.errors import MfuroofWarning
from mfuroof.serving.burst import burst
from mfuroof.serving.cycle import Cycle, cycle
from mfuroof.serving.inputs import Inputs, serving_inputs
from mfuroof.serving.lengths import Lengths
from mfuroof.serving.result import Limit, ServingResult
from mfuroof.serving.scheduler import Scheduler, scheduler_of
from mfuroof.serving.speculative import Speculation
from mfuroof.serving.steps import Load, Steps, cut_prompts
from mfuroof.step import StepEvaluator

__all__ = ["estimate"]
