"""Predictions against measurements: serving points, request traces, runs and single steps."""

from mfuroof.validate.holdout import leave_each_out, leave_one_out
from mfuroof.validate.intervals import Coverage, coverage
from mfuroof.validate.kinds import GROUPS, joined, kind_of, validate_table
from mfuroof.validate.peers import PEERS, PeerScore
from mfuroof.validate.requests import validate_requests
from mfuroof.validate.runs import validate_runs
from mfuroof.validate.scores import Report, Score, batch_bins, score
from mfuroof.validate.serving import validate_serving
from mfuroof.validate.steps import validate_steps

__all__ = [
    "GROUPS",
    "PEERS",
    "Coverage",
    "PeerScore",
    "Report",
    "Score",
    "batch_bins",
    "coverage",
    "joined",
    "kind_of",
    "leave_each_out",
    "leave_one_out",
    "score",
    "validate_requests",
    "validate_runs",
    "validate_serving",
    "validate_steps",
    "validate_table",
]
