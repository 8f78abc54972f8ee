"""Continuous batching in plain Python, one step after another; imports nothing of ours.

A step takes ``step_time(decode_contexts, prompts)`` seconds, with ``prompts`` a list of (tokens held, new tokens).
"""

from __future__ import annotations

import math


class Request:
    def __init__(self, prompt, output, cached, arrival):
        self.prompt, self.output, self.arrival = prompt, output, arrival
        self.shared = min(cached, prompt - 1)
        self.held, self.goal, self.left = self.shared, prompt, output
        self.first = self.end = math.nan
        self.thrown_out = None  # (tokens held, tokens written by all until then)


def serve(step_time, prompts, outputs, cached, arrivals, clients, policy, kv_tokens, think_s=0.0):
    """Return (arrival, first token, end) of each request.

    ``policy``: dict of mixes, chunks, reserves, keeps_evicted, budget, seats, lag, overhead, launch_tokens, launch_s.
    """
    requests = [Request(*r) for r in zip(prompts, outputs, cached, arrivals, strict=True)]
    room_for_all = kv_tokens - max((r.shared for r in requests), default=0)
    to_come = [r for r in requests if r.prompt + r.output - r.shared <= room_for_all]
    visible_from = {}
    waiting, filling, decoding = [], [], []
    now, starts, written = 0.0, [0.0], 0

    def submit(time):
        if to_come:
            r = to_come.pop(0)
            if time is not None:
                r.arrival = time
            visible_from[r] = r.arrival + policy["overhead"]

    def own(r):
        return r.held - r.shared

    def used():
        return sum(own(r) for r in filling + decoding)

    for _ in range(clients or len(to_come)):
        submit(0.0 if clients else None)
    while visible_from or waiting or filling or decoding:
        if not (waiting or filling or decoding):
            now = max(now, min(visible_from.values()))
            starts = [now]
        horizon = starts[-policy["lag"]] if len(starts) >= policy["lag"] else starts[0]
        order = {r: i for i, r in enumerate(requests)}
        for r in sorted(visible_from, key=lambda r: (visible_from[r], order[r])):
            if visible_from[r] <= horizon:
                waiting.append(r)
                del visible_from[r]
        if not policy["reserves"]:
            while used() + max(len(decoding), 1) > room_for_all and len(filling) + len(decoding) > 1:
                r = (filling or decoding).pop()
                r.thrown_out = (r.held, written)
                r.goal = r.prompt + r.output - r.left
                waiting.insert(0, r)
        plan = compose(waiting, filling, decoding, policy, room_for_all, used(), written)
        riding = decoding if policy["mixes"] or not plan else []
        seconds = step_time([r.held for r in riding], [(held, new) for _, held, new in plan])
        tokens = sum(new for _, _, new in plan)
        now += seconds + policy["launch_s"] * min(tokens / policy["launch_tokens"], 1.0)
        starts.append(now)
        for r in riding:
            r.held += 1
            r.left -= 1
            written += 1
        for r, _, new in plan:
            r.held += new
            written += new
            if r.held >= r.goal:
                filling.remove(r)
                decoding.append(r)
                r.left -= 1
                if math.isnan(r.first):
                    r.first = now
        for r in [r for r in decoding if r.left == 0]:
            decoding.remove(r)
            r.end = now
            submit(now + think_s)
    return [(r.arrival, r.first, r.end) for r in requests]


def compose(waiting, filling, decoding, policy, room_for_all, used, written):
    """Choose the prompts of the next step; what is admitted moves from ``waiting`` to ``filling``."""
    budget = policy["budget"] - (len(decoding) if policy["mixes"] else 0)
    room = room_for_all - used - len(decoding)
    plan = []
    for r in filling:
        new = min(r.goal - r.held, budget, room)
        if new > 0:
            plan.append((r, r.held, new))
            budget, room = budget - new, room - new
    while waiting and budget > 0 and len(filling) + len(decoding) < policy["seats"]:
        r = waiting[0]
        held = r.shared
        if r.thrown_out and policy["keeps_evicted"]:
            before, then = r.thrown_out
            held = min(max(before - (written - then), r.shared), r.goal - 1)
        new = r.goal - held
        if new > budget:
            if not policy["chunks"] and plan:
                break
            new = budget if policy["chunks"] else new
        if policy["reserves"]:
            promised = sum(q.prompt + q.output - q.shared for q in filling + decoding)
            if promised + r.prompt + r.output - r.shared > room_for_all:
                break
        elif held - r.shared + new > room:
            break
        waiting.pop(0)
        filling.append(r)
        r.held = held
        plan.append((r, held, new))
        budget, room = budget - new, room - new - (held - r.shared)
    return plan


def relative_errors(predicted, measured):
    """Return (count, failed, mean, median, bias) of predicted / measured - 1, as `score` defines them."""
    pairs = [(p, m) for p, m in zip(predicted, measured, strict=True) if math.isfinite(m) and m > 0]
    errors = [p / m - 1 for p, m in pairs if math.isfinite(p)]
    if not errors:
        return len(pairs), len(pairs), math.nan, math.nan, math.nan
    size = sorted(abs(e) for e in errors)
    half = len(size) // 2
    median = size[half] if len(size) % 2 else 0.5 * (size[half - 1] + size[half])
    return len(pairs), len(pairs) - len(errors), sum(size) / len(size), median, sum(errors) / len(errors)
