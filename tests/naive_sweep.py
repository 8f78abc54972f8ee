"""What reductions of a sweep keep, in plain Python on lists of dicts; imports nothing of ours."""

from __future__ import annotations

import math


def groups_of(rows, by):
    """Rows by the values of some columns, in the order of these values; a missing one is last."""
    found = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in by), []).append(row)
    return [found[key] for key in sorted(found, key=lambda key: [(v is None, v if v is not None else 0) for v in key])]


def top_rows(rows, column, by, k, largest):
    """The k rows of each group with the most (or least) of a column, the earlier of equals first; NaN is never one."""
    out = []
    for group in groups_of([r for r in rows if not math.isnan(r[column])], by):
        out += sorted(group, key=lambda r: -r[column] if largest else r[column])[:k]  # sorting is stable
    return out


def front_rows(rows, goals, by):
    """Rows that no other of their group is at least as good as in everything; of equal rows the first stays."""
    signs = {name: 1 if way == "max" else -1 for name, way in goals.items()}
    out = []
    for group in groups_of([r for r in rows if not any(math.isnan(r[name]) for name in goals)], by):
        points = [tuple(sign * r[name] for name, sign in signs.items()) for r in group]
        front = []
        for i, p in enumerate(points):
            beaten = any(
                all(x >= y for x, y in zip(q, p, strict=True)) and (q != p or j < i)
                for j, q in enumerate(points)
                if j != i
            )
            if not beaten:
                front.append(i)
        out += [group[i] for i in sorted(front, key=lambda i: [-v for v in points[i]])]
    return out
