"""Collect: measure the points of a plan, one after another, until they or the time are used up.

Every result is on disk before the next point begins, so an interruption loses at most the point in flight. A result
that is wrong, a shape without room and a kernel that does not exist are recorded as such and are no data.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mfuroof._boundary import Problems, choice
from mfuroof._version import __version__
from mfuroof.collect.backend import Backend, Clocks, Kernel, KernelOutOfMemoryError, KernelUnsupportedError
from mfuroof.collect.journal import Journal
from mfuroof.collect.measure import Effort, Timing, measure
from mfuroof.collect.outliers import suspects
from mfuroof.collect.point import FAMILIES, Point
from mfuroof.errors import InputError, MfuroofError, Problem

__all__ = ["JOURNAL", "Progress", "check_families", "run_points"]

JOURNAL = "journal.jsonl"
MOST_FAILURES = 5
"""Points of one kernel that fail for no known reason, none of them right, before this session leaves the others out."""
MOST_DEATHS = 2
"""Times that a point may take the process down before it is left out."""

Advance = Callable[[int, int], None]


@dataclass
class Progress:
    """What a session did.

    Attributes
    ----------
    planned, done
        Points of the plan, and those with a result from this or an earlier session.
    measured
        Points measured in this session.
    counts
        Results of this session by status.
    given_up
        Kernels (family and variant) that failed and failed; their other points are left for another session.
    out_of_time
        Whether the time ended before the plan.
    interrupted
        Whether the user stopped it.
    """

    planned: int = 0
    done: int = 0
    measured: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    given_up: list[str] = field(default_factory=list)
    out_of_time: bool = False
    interrupted: bool = False


def check_families(backend: Backend, families: Sequence[str] | None, default: Sequence[str]) -> tuple[str, ...]:
    """Return the families to collect: those asked for, or those of ``default`` that the device has.

    Raises
    ------
    UnknownNameError
        No such family.
    InputError
        The device cannot measure one that was asked for.
    """
    if families is None:
        return tuple(name for name in default if name in backend.families)
    chosen = tuple(choice("family to collect", name, FAMILIES) for name in dict.fromkeys(families))
    problems = Problems()
    for name in chosen:
        if name not in backend.families:
            has = ", ".join(backend.families)
            problems.add("families", name, f"one that the device {backend.device.kind} has: {has}")
    if not chosen:
        problems.add("families", "none", f"some of {', '.join(FAMILIES)}")
    problems.raise_if_any()
    return chosen


def run_points(
    backend: Backend,
    points: Sequence[Point],
    journal: Journal,
    *,
    minutes: float | None = None,
    effort: Effort | None = None,
    session: Mapping[str, Any] | None = None,
    advance: Advance | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """Measure what a journal does not hold yet, then measure again what stands out from its neighbours.

    Parameters
    ----------
    backend
        The device.
    points
        In the order of their value.
    journal
        Where results go, and where earlier ones are.
    minutes
        Time to spend; a point that has begun is finished. None: until all is done. [min]
    effort
        How long a point is measured.
    session
        What to note about this session beside device and date: the command, for instance.
    advance
        Told the points done and planned.
    clock
        Seconds, monotone.

    Raises
    ------
    InputError
        The journal is of another device.
    OutputError
        A result cannot be written.
    MfuroofError
        The device does not compute any more.
    """
    deadline = None if minutes is None else clock() + 60.0 * minutes
    _check_device(backend, journal)
    journal.begin(
        mfuroof=__version__, at=_now(), device=backend.device.to_dict(), minutes=minutes, **dict(session or {})
    )
    effort = effort or Effort()
    finished = {r["point"] for r in journal.results if r["status"] != "failed"}
    remaining = [p for p in points if p.name not in finished]
    progress = Progress(planned=len(points), done=len(points) - len(remaining))
    state = _Session(backend, journal, effort, progress)
    try:
        _go(state, remaining, deadline, clock, advance, again=False)
        if not progress.out_of_time:
            wanted = {p.name: p for p in points}
            repeated = [wanted[name] for name in suspects(journal.results) if name in wanted]
            _go(state, repeated, deadline, clock, None, again=True)
    except KeyboardInterrupt:
        progress.interrupted = True
    return progress


@dataclass
class _Session:
    backend: Backend
    journal: Journal
    effort: Effort
    progress: Progress
    failures: dict[tuple[str, str], float] = field(default_factory=dict)


def _go(
    state: _Session,
    points: Sequence[Point],
    deadline: float | None,
    clock: Callable[[], float],
    advance: Advance | None,
    *,
    again: bool,
) -> None:
    deaths = state.journal.deaths()
    for point in points:
        if deadline is not None and clock() >= deadline:
            state.progress.out_of_time = True
            return
        if state.failures.get((point.family, point.variant), 0.0) >= MOST_FAILURES:
            continue
        if deaths[point.name] >= MOST_DEATHS:
            record = _record(point, "fatal", text=f"ended the process {deaths[point.name]} times")
        else:
            state.journal.announce(point.name)
            record = _measured(state, point)
        if again:
            record["again"] = True
        state.journal.add(record)
        status = record["status"]
        state.progress.measured += 1
        state.progress.done += not again
        state.progress.counts[status] = state.progress.counts.get(status, 0) + 1
        _judge(state, point, record)
        if advance is not None:
            advance(state.progress.done, state.progress.planned)


def _judge(state: _Session, point: Point, record: dict[str, Any]) -> None:
    """Count the failures of a kernel that was never right; stop where the device is the reason."""
    kernel = (point.family, point.variant)
    if record["status"] == "ok":
        state.failures[kernel] = float("-inf")
    if record["status"] != "failed":
        return
    if not state.backend.alive():
        raise MfuroofError(
            f"the device computes no more since {point} ({record['text']}). What was measured is kept; run again with "
            "--resume (resume=True): a point that does this twice is left out"
        )
    state.failures[kernel] = state.failures.get(kernel, 0.0) + 1.0
    if state.failures[kernel] >= MOST_FAILURES:
        state.progress.given_up.append(f"{point.family} {point.variant}: {record['text']}")


def _measured(state: _Session, point: Point) -> dict[str, Any]:
    """Return the record of one point: its time where the result is right, else what is wrong."""
    backend = state.backend
    error = tolerance = None
    kernel: Kernel | None = None
    try:
        kernel = backend.prepare(point)
        error, tolerance = float(kernel.check()), kernel.tolerance
        if not error <= tolerance:
            text = f"relative error {error:.3g} against the reference, at most {tolerance:g} is rounding"
            return _record(point, "wrong", error=_finite(error), tolerance=tolerance, text=text)
        timing = measure(backend, kernel, state.effort)
        clocks = backend.clocks()
        if clocks is not None and clocks.slowed:  # once more when it has cooled down a little
            timing, clocks = _faster((timing, clocks), (measure(backend, kernel, state.effort), backend.clocks()))
        return _record(point, "ok", timing, clocks, error=error, tolerance=tolerance)
    except KernelOutOfMemoryError as reason:
        return _record(point, "oom", text=_short(reason))
    except KernelUnsupportedError as reason:
        return _record(point, "unsupported", text=_short(reason))
    except (MfuroofError, KeyboardInterrupt):
        raise
    except Exception as reason:  # foreign kernels raise anything; one of them must not end the collection
        return _record(point, "failed", text=f"{type(reason).__name__}: {_short(reason)}")
    finally:
        kernel = None  # its buffers must be free before the next point
        backend.release()


def _faster(*found: tuple[Timing, Clocks | None]) -> tuple[Timing, Clocks | None]:
    return min(found, key=lambda pair: (pair[0].latency_s, pair[1] is not None and pair[1].slowed))


def _record(
    point: Point, status: str, timing: Timing | None = None, clocks: Clocks | None = None, **more: Any
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "point": point.name,
        "status": status,
        "family": point.family,
        "variant": point.variant,
        "shape": point.keys,
        "level": point.level,
        "at": _now(),
    }
    if timing is not None:
        record |= asdict(timing)
        record["clocks"] = None if clocks is None else asdict(clocks)
    return record | {k: v for k, v in more.items() if v is not None}


def _check_device(backend: Backend, journal: Journal) -> None:
    mine = (backend.device.kind, backend.device.name)
    for session in journal.sessions:
        there = (session["device"]["kind"], session["device"]["name"])
        if there != mine:
            remedy = "Collect each device into a folder of its own."
            raise InputError(Problem(str(journal.path), f"results of {there[1]} ({there[0]})", f"of {mine[1]}", remedy))


def _finite(value: float) -> float | None:
    return value if value - value == 0.0 else None


def _short(reason: object) -> str:
    lines = str(reason).strip().splitlines()
    return lines[0][:300] if lines else type(reason).__name__


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
