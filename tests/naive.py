"""What lookups mean, in plain Python: the slowest obvious way, importing nothing of ours.

A curve is two lists, a grid is a dict {(row, col): value}, GEMM sites are a dict {(k, n): {m: value}}. Every lookup
returns (value, source, point or points), with source in the words below; a missing answer is (nan, "missing", nan).
"""

from __future__ import annotations

import math

EXACT, INTERPOLATED, CLAMPED, SUBSTITUTED, MISSING = "exact", "interpolated", "clamped", "substituted", "missing"
CODES = {EXACT: 0, INTERPOLATED: 1, CLAMPED: 2, SUBSTITUTED: 4, MISSING: 255}
FAR = 1e150


def floor(grid, values, x):
    below = [[v for g, v in zip(grid, values, strict=True) if g <= q] for q in x]
    return [b[-1] if b else math.nan for b in below]


def between(v0, v1, t):
    v = v0 + t * (v1 - v0)
    return min(max(v, min(v0, v1)), max(v0, v1))


def place(rule, x0, x1, x):
    if rule == "loglog":
        span = math.log(x1) - math.log(x0)
        return (math.log(x) - math.log(x0)) / span if span > 0 else 0.0
    return (x - x0) / (x1 - x0)


def blend(rule, v0, v1, t):
    if rule == "loglog":
        v = math.exp(between(math.log(v0), math.log(v1), t))
        return min(max(v, min(v0, v1)), max(v0, v1))
    return between(v0, v1, t)


def curve(points, rule, policy, x):
    """points: {coordinate: value}; rule by name; policy "own", "clamp" or "blank"."""
    nothing = (math.nan, MISSING, math.nan)
    if math.isnan(x):
        return nothing
    first, last = min(points), max(points)
    if not first <= x <= last:
        edge = first if x < first else last
        reach = {"floor": x > last, "ceiling": x < first, "nearest_l1": True, "nearest_l2": True}.get(rule, False)
        if policy == "clamp" or (policy == "own" and reach):
            return points[edge], CLAMPED, edge
        return nothing
    if x in points:
        return points[x], EXACT, x
    lower, upper = max(g for g in points if g < x), min(g for g in points if g > x)
    near = lower if x - lower <= upper - x else upper
    if rule == "floor":
        return points[lower], INTERPOLATED, lower
    if rule == "ceiling":
        return points[upper], INTERPOLATED, upper
    if rule in ("nearest_l1", "nearest_l2"):
        return points[near], INTERPOLATED, near
    return blend(rule, points[lower], points[upper], place(rule, lower, upper, x)), INTERPOLATED, near


def rows_of(cells):
    rows = {}
    for (y, x), v in cells.items():
        rows.setdefault(y, {})[x] = v
    return dict(sorted(rows.items()))


def worse(a, b):
    return a if CODES[a] >= CODES[b] else b


def nearest(cells, rule, policy_y, policy_x, y, x):
    rows = rows_of(cells)
    columns = [c for _, c in cells]
    sought_y = min(max(y, min(rows)), max(rows)) if math.isinf(y) else y
    sought_x = min(max(x, min(columns)), max(columns)) if math.isinf(x) else x

    def distance(key):
        dy, dx = min(abs(sought_y - key[0]), FAR), min(abs(sought_x - key[1]), FAR)
        return dy + dx if rule == "nearest_l1" else dy * dy + dx * dx

    in_each_row = [(r, curve(row, rule, "clamp", sought_x)[2]) for r, row in rows.items()]
    best = min(in_each_row, key=distance)  # the first of equals: the lower row
    row = rows[best[0]]
    out_y, out_x = not min(rows) <= y <= max(rows), not min(row) <= x <= max(row)
    if (out_y and policy_y == "blank") or (out_x and policy_x == "blank"):
        return math.nan, MISSING, math.nan, math.nan
    source = CLAMPED if out_y or out_x else EXACT if best == (y, x) else INTERPOLATED
    return cells[best], source, *best


def grid(cells, rule, policy_y, policy_x, y, x):
    nothing = (math.nan, MISSING, math.nan, math.nan)
    if math.isnan(y) or math.isnan(x):
        return nothing
    if rule in ("nearest_l1", "nearest_l2"):
        return nearest(cells, rule, policy_y, policy_x, y, x)
    rows = rows_of(cells)
    row_rule = rule if rule in ("floor", "ceiling") else "linear"
    _, source, at = curve(dict.fromkeys(rows, 0.0), row_rule, policy_y, y)
    if source == MISSING:
        return nothing
    if source != INTERPOLATED or rule in ("floor", "ceiling"):
        value, column_source, point = curve(rows[at], rule, policy_x, x)
        return (value, worse(source, column_source), at, point) if column_source != MISSING else nothing
    low, high = max(r for r in rows if r < y), min(r for r in rows if r > y)
    left, right = max(min(rows[low]), min(rows[high])), min(max(rows[low]), max(rows[high]))
    if not left <= x <= right:
        if policy_x != "clamp":
            return nothing
        source = CLAMPED
        if left <= right:
            x = min(max(x, left), right)
    (v0, _, p0), (v1, _, p1) = (curve(rows[r], rule, "clamp", x) for r in (low, high))
    value = blend(rule, v0, v1, place(rule, low, high, y))
    return (value, source, low, p0) if y - low <= high - y else (value, source, high, p1)


def edge(cells, rule, y, x):
    """Where utilisation is held from: the query moved to the nearest place where the grid answers."""
    rows = rows_of(cells)
    at_y = min(max(y, min(rows)), max(rows))
    if rule in ("nearest_l1", "nearest_l2"):
        row = rows[nearest(cells, rule, "own", "own", y, x)[2]]
        return at_y, min(max(x, min(row)), max(row))
    row_rule = rule if rule in ("floor", "ceiling") else "linear"
    _, source, at = curve(dict.fromkeys(rows, 0.0), row_rule, "clamp", y)
    answering = [rows[at]]
    if source == INTERPOLATED and row_rule == "linear":
        answering = [rows[max(r for r in rows if r < y)], rows[min(r for r in rows if r > y)]]
    left, right = max(min(row) for row in answering), min(max(row) for row in answering)
    return at_y, min(max(x, left), right) if left <= right else x


def gemm(sites, rule, policy_site, policy_m, m, k, n):
    nothing = (math.nan, MISSING, math.nan, None)
    covering = [s for s in sorted(sites) if s[0] >= k and s[1] >= n]
    if covering:
        site = min(covering, key=lambda s: (s[0] - k) ** 2 + (s[1] - n) ** 2)
    elif policy_site == "clamp" and not math.isnan(k + n):
        site = max(sorted(sites), key=lambda s: s[0] ** 2 + s[1] ** 2)
    else:
        return nothing
    value, source, point = curve(sites[site], rule, policy_m, m)
    if source == MISSING:
        return nothing
    return value, source if site == (k, n) else SUBSTITUTED, point, site


def octaves(q, p):
    if q == p:
        return 0.0
    if q > 0 and p > 0:
        return abs(math.log2(q) - math.log2(p))
    return abs(math.asinh(q) - math.asinh(p)) / math.log(2)
