"""Predictions against measurements: serving points, request traces, runs and single steps."""

from mfuroof.validate.holdout import leave_one_out
from mfuroof.validate.peers import PEERS, PeerScore
from mfuroof.validate.requests import validate_requests
from mfuroof.validate.runs import validate_runs
from mfuroof.validate.scores import Report, Score, batch_bins, score
from mfuroof.validate.serving import validate_serving
from mfuroof.validate.steps import validate_steps

__all__ = [
    "PEERS",
    "PeerScore",
    "Report",
    "Score",
    "batch_bins",
    "leave_one_out",
    "score",
    "validate_requests",
    "validate_runs",
    "validate_serving",
    "validate_steps",
]
