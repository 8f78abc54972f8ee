"""Lookups in compiled tables: floor, ceiling, nearest, linear, log-log, with a stated policy outside the data.

A rule reads inside the measured range; ``outside`` says what happens beyond it, per axis:

=========  =====================================================================================================
None       the rule's own reach: floor answers above the grid, ceiling below, nearest everywhere; NaN elsewhere
"clamp"    the value at the edge
"hold"     the value at the edge, scaled with ``roofline``: the utilisation of the edge is held
"nan"      NaN, for every query outside the grid
"raise"    `InputError` naming the first query outside the grid
=========  =====================================================================================================

Of a ragged grid, what is not measured is outside: between two rows a blend answers where both rows have data.
Measured points come back verbatim, NaN comes back as NaN, and blends stay within their bracket.
"""

from __future__ import annotations

from mfuroof.lookup.outside import POLICIES
from mfuroof.lookup.rules import RULES, ceiling, floor, linear, loglog, nearest, read
from mfuroof.lookup.run import Details

__all__ = ["POLICIES", "RULES", "Details", "ceiling", "floor", "linear", "loglog", "nearest", "read"]
