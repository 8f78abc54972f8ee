"""The two-stage GEMM lookup: a measured weight shape that covers (k, n), then its curve over m.

Sites are sorted by k, then n; site s owns the curve ``m[offsets[s]:offsets[s + 1]]``.
"""

from __future__ import annotations

import math

import numpy as np

from mfuroof._types import F64, I64, U8
from mfuroof.core._jit import jit
from mfuroof.core.lookup import CLAMP, FAR, curve_read
from mfuroof.core.search import octaves
from mfuroof.core.sources import MISSING, SUBSTITUTED

__all__ = ["ceiling_site", "largest_site", "sites_clamp", "sites_details", "sites_lookup", "sites_read"]


@jit
def ceiling_site(site_k: F64, site_n: F64, k: float, n: float) -> int:
    """Site nearest to (k, n) by Euclid among those with k' >= k and n' >= n; the first on a tie, -1 if none."""
    best, found = math.inf, -1
    for s in range(site_k.size):
        if site_k[s] >= k and site_n[s] >= n:
            dk, dn = min(site_k[s] - k, FAR), min(site_n[s] - n, FAR)
            d = dk * dk + dn * dn
            if d < best:
                best, found = d, s
    return found


@jit
def largest_site(site_k: F64, site_n: F64) -> int:
    """Site with the largest k^2 + n^2; the first on a tie."""
    best, found = -math.inf, -1
    for s in range(site_k.size):
        size = site_k[s] * site_k[s] + site_n[s] * site_n[s]
        if size > best:
            best, found = size, s
    return found


@jit
def sites_read(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    grid: F64,
    values: F64,
    rule: int,
    policy_site: int,
    policy_m: int,
    m: float,
    k: float,
    n: float,
) -> tuple[float, int, float, int]:
    """Read sites at (m, k, n): value, source code, the nearest measured m that was used, and the site (-1: none)."""
    s = ceiling_site(site_k, site_n, k, n)
    if s < 0 and policy_site == CLAMP and not (math.isnan(k) or math.isnan(n)):
        s = largest_site(site_k, site_n)
    if s < 0:
        return math.nan, MISSING, math.nan, -1
    v, code, point = curve_read(grid, values, offsets[s], offsets[s + 1], rule, policy_m, m)
    if code != MISSING and (site_k[s] != k or site_n[s] != n):
        code = SUBSTITUTED
    return v, code, point, s


@jit
def sites_lookup(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    grid: F64,
    values: F64,
    rule: int,
    policy_site: int,
    policy_m: int,
    m: F64,
    k: F64,
    n: F64,
    out: F64,
) -> None:
    """out[i] = the table at (m[i], k[i], n[i])."""
    for i in range(m.size):
        out[i] = sites_read(
            site_k, site_n, offsets, grid, values, rule, policy_site, policy_m, m[i], k[i], n[i]
        )[0]


@jit
def sites_details(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    grid: F64,
    values: F64,
    rule: int,
    policy_site: int,
    policy_m: int,
    m: F64,
    k: F64,
    n: F64,
    out: F64,
    source: U8,
    distance: F64,
) -> None:
    """As `sites_lookup`, with the source code and the largest distance of the three axes in octaves."""
    for i in range(m.size):
        out[i], code, point, s = sites_read(
            site_k, site_n, offsets, grid, values, rule, policy_site, policy_m, m[i], k[i], n[i]
        )
        source[i] = code
        distance[i] = np.nan
        if code != MISSING:
            distance[i] = max(octaves(m[i], point), octaves(k[i], site_k[s]), octaves(n[i], site_n[s]))


@jit
def sites_clamp(
    site_k: F64,
    site_n: F64,
    offsets: I64,
    grid: F64,
    m: F64,
    k: F64,
    n: F64,
    at_m: F64,
    at_k: F64,
    at_n: F64,
) -> None:
    """Move every query to the nearest place where the sites answer; a (k, n) that a site covers stays."""
    for i in range(m.size):
        if math.isnan(m[i]) or math.isnan(k[i]) or math.isnan(n[i]):
            at_m[i], at_k[i], at_n[i] = np.nan, np.nan, np.nan
            continue
        s = ceiling_site(site_k, site_n, k[i], n[i])
        at_k[i], at_n[i] = k[i], n[i]
        if s < 0:
            s = largest_site(site_k, site_n)
            at_k[i], at_n[i] = site_k[s], site_n[s]
        at_m[i] = min(max(m[i], grid[offsets[s]]), grid[offsets[s + 1] - 1])
