"""What surrounds a long command: a progress bar on a terminal, and signals that end it tidily."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mfuroof.cli.output import console

__all__ = ["Advance", "progress_bar", "stoppable"]

Advance = Callable[[int, int], None]
"""Told how many steps are done, and of how many."""


@contextmanager
def stoppable() -> Iterator[Callable[[Advance], Advance]]:
    """Let SIGINT, SIGTERM and a closed terminal raise `KeyboardInterrupt`, so that temporary files go too.

    Foreign code may swallow an exception that a signal raises in it (a callback of the compiler, a destructor), so
    this yields a function that wraps an `Advance`: the wrapped one raises it once more.
    """
    asked: list[int] = []

    def stop(number: int, frame: object) -> None:
        asked.append(number)
        raise KeyboardInterrupt

    def guard(advance: Advance) -> Advance:
        def guarded(done: int, total: int) -> None:
            if asked:
                raise KeyboardInterrupt
            advance(done, total)

        return guarded

    if threading.current_thread() is not threading.main_thread():
        yield guard
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    hang_up = getattr(signal, "SIGHUP", None)
    if hang_up is not None and signal.getsignal(hang_up) is not signal.SIG_IGN:  # nohup asks to go on
        numbers.append(hang_up)
    before = [(number, signal.signal(number, stop)) for number in numbers]
    try:
        yield guard
    finally:
        for number, handler in before:
            signal.signal(number, handler)


@contextmanager
def progress_bar(title: str, *, rate: bool = True) -> Iterator[Advance]:
    """Show steps done, their rate if wanted and the remaining time on a terminal; nothing elsewhere."""
    terminal = console(stderr=True)
    if not terminal.is_terminal:
        yield lambda done, total: None
        return
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second of late."""

        def render(self, task: Task) -> Text:
            return Text(f"{(task.finished_speed or task.speed or 0) / 1e6:.1f} M steps/s")

    rates = (Rate(),) if rate else ()
    columns = (TextColumn(title), BarColumn(), TaskProgressColumn(), *rates, TimeRemainingColumn())
    with Progress(*columns, console=terminal, transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
