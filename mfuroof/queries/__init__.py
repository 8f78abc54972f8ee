"""Questions to results and evaluators: what is best, what is on the Pareto front, where things cross, how much fits.

Every answer is a `QueryResult`: a small table, a picture and a sentence.
"""

from mfuroof.queries.best import best
from mfuroof.queries.concurrency import largest_concurrency
from mfuroof.queries.crossover import bound_crossover, crossover
from mfuroof.queries.describe import Description, describe
from mfuroof.queries.largest import largest
from mfuroof.queries.pareto import THROUGHPUT_AND_SPEED, pareto_front
from mfuroof.queries.result import QueryResult

__all__ = [
    "THROUGHPUT_AND_SPEED",
    "Description",
    "QueryResult",
    "best",
    "bound_crossover",
    "crossover",
    "describe",
    "largest",
    "largest_concurrency",
    "pareto_front",
]
