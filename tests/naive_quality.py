"""The definitions of the audit of kernel tables, row by row in plain Python; imports nothing of ours.

A table is a list of (keys, latency) with keys a dict; ``axes`` maps the keys along which work grows to the largest
power it grows with.
"""

import math


def line(table, row, axis):
    """Row numbers of the line through ``row`` along ``axis``, ascending."""
    keys = table[row][0]
    same = [i for i, (other, _) in enumerate(table) if all(other[k] == keys[k] for k in keys if k != axis)]
    return sorted(same, key=lambda i: table[i][0][axis])


def around(table, row, axis):
    """Neighbours of a row along an axis: (before, after), None where there is none."""
    on = line(table, row, axis)
    at = on.index(row)
    return on[at - 1] if at else None, on[at + 1] if at + 1 < len(on) else None


def bounds(table, row, axis, power):
    """(low, high) of the time of a row, or None where its neighbours say nothing or contradict."""
    before, after = around(table, row, axis)
    x = table[row][0][axis]
    low, high = [], []
    for other in (before, after):
        if other is None:
            continue
        x2, t2 = table[other][0][axis], table[other][1]
        scaled = t2 * (x / x2) ** power
        low.append(min(t2, scaled))
        high.append(max(t2, scaled))
    if not low or max(low) > 1.02 * min(high):
        return None
    return max(low), min(high)


def outliers(table, axes, factor):
    """{row: (slow or fast, excess)} of the rows that every axis calls wrong."""
    wrong = {}
    for row, (_, time) in enumerate(table):
        known = {a: bounds(table, row, a, p) for a, p in axes.items()}
        known = {a: b for a, b in known.items() if b}
        if not any(None not in around(table, row, a) for a in known):
            continue
        slow = min(time / high for _, high in known.values())
        fast = min(low / time for low, _ in known.values())
        if max(slow, fast) >= factor:
            wrong[row] = ("slow", slow) if slow >= factor else ("fast", fast)
    beside = {row: {n for a in axes for n in around(table, row, a) if n is not None} for row in wrong}

    def beaten(row):
        how, size = wrong[row]
        return any(n in wrong and wrong[n][0] != how and wrong[n][1] > size for n in beside[row])

    return {row: found for row, found in wrong.items() if not beaten(row)}


def falls(table, axis, least):
    """(row before, row after, fall) of neighbours that get faster by more than ``least``."""
    found = []
    for row, (_, time) in enumerate(table):
        after = around(table, row, axis)[1]
        if after is not None and 1 - table[after][1] / time > least:
            found.append((row, after, 1 - table[after][1] / time))
    return found


def gaps(table, axes, axis):
    """Number of points missing between measured ones of a line, though their configuration has them elsewhere."""
    missing = 0
    for row, (keys, _) in enumerate(table):
        before = around(table, row, axis)[0]
        if before is None:
            continue
        alike = [o[axis] for o, _ in table if len(axes) == 1 or all(o[k] == keys[k] for k in keys if k not in axes)]
        missing += len({x for x in alike if table[before][0][axis] < x < keys[axis]})
    return missing


def predictions(table, row, axis, power):
    """{rule: predicted time} of a row that is left out; None where it has not both neighbours."""
    before, after = around(table, row, axis)
    if before is None or after is None:
        return None
    (x1, t1), x, (x2, t2) = (
        (table[before][0][axis], table[before][1]),
        table[row][0][axis],
        (table[after][0][axis], table[after][1]),
    )
    launch = min(table[line(table, row, axis)[0]][1], t1, t2)

    def blend(a, b, x1=x1, x=x, x2=x2):
        return a + (b - a) * (x - x1) / (x2 - x1)

    held = {"floor": t1 * (x / x1) ** power, "above": t2 * (x / x2) ** power}
    return {
        "floor": held["floor"],
        "nearest": held["floor"] if x / x1 <= x2 / x else held["above"],
        "linear": blend(t1, t2),
        "sqrt": blend(math.sqrt(t1), math.sqrt(t2)) ** 2,
        "loglog": math.exp(blend(math.log(t1), math.log(t2), math.log(x1), math.log(x), math.log(x2))),
        "affine_rate": launch + x * blend((t1 - launch) / x1, (t2 - launch) / x2),
    }
