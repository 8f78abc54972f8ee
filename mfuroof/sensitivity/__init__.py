"""Where a time comes from: elasticities to resources and load, what a better device would save, where to invest."""

from mfuroof.sensitivity.elasticity import SHAPES, Metric, Sensitivity, elasticities, load_elasticities, sensitivity
from mfuroof.sensitivity.invest import Investment, what_if, where_to_invest

__all__ = [
    "SHAPES",
    "Investment",
    "Metric",
    "Sensitivity",
    "elasticities",
    "load_elasticities",
    "sensitivity",
    "what_if",
    "where_to_invest",
]
