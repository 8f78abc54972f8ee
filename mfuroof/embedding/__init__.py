"""One step at a time for other simulators: lists of requests, or sums over them, to seconds.

`Embedded` wraps a `StepEvaluator` for event loops: a Python float back, positive and finite, the same bits for the
same batch, a few microseconds a call. Arrays of many steps are better served by `StepEvaluator.step_time`.
"""

from mfuroof.embedding.embedded import MIN_STEP_S, Embedded
from mfuroof.embedding.stamp import kernel_stamp

__all__ = ["MIN_STEP_S", "Embedded", "kernel_stamp"]
