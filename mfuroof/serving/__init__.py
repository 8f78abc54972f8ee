"""The serving view: TTFT, TPOT and throughput under load, from step times."""

from mfuroof.serving.replay import replay
from mfuroof.serving.requests import RequestTimes
from mfuroof.serving.scheduler import SCHEDULERS, Scheduler, scheduler_of

__all__ = ["SCHEDULERS", "RequestTimes", "Scheduler", "replay", "scheduler_of"]
