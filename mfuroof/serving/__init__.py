"""The serving view: TTFT, TPOT and throughput under load, from step times."""

from mfuroof.serving.disaggregated import DisaggregatedResult, disaggregated
from mfuroof.serving.estimate import estimate
from mfuroof.serving.lengths import Lengths
from mfuroof.serving.replay import replay
from mfuroof.serving.requests import RequestTimes
from mfuroof.serving.result import Limit, ServingResult
from mfuroof.serving.scheduler import SCHEDULERS, Scheduler, scheduler_of
from mfuroof.serving.speculative import Speculation

__all__ = [
    "SCHEDULERS",
    "DisaggregatedResult",
    "Lengths",
    "Limit",
    "RequestTimes",
    "Scheduler",
    "ServingResult",
    "Speculation",
    "disaggregated",
    "estimate",
    "replay",
    "scheduler_of",
]
