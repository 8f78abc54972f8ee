"""Run the command line: errors become one line with the remedy and a documented exit code."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, TextIO

from mfuroof.errors import (
    MfuroofError,
    MfuroofWarning,
    MissingTableError,
    OutputError,
    TableFormatError,
)

__all__ = ["BAD_INPUT", "DATA", "DEFECT", "INTERRUPTED", "OUTPUT", "main"]

DEFECT, BAD_INPUT, DATA, OUTPUT, INTERRUPTED = 1, 2, 3, 4, 130
"""Exit codes: a defect of ours, bad input, measured data missing or damaged, no output, interrupted."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv
        Arguments without the program's name; None for those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    with warnings.catch_warnings():
        warnings.simplefilter("always", MfuroofWarning)
        warnings.showwarning = _show_warning
        try:
            code = _run(arguments)
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            _say("stopped; nothing was left half-written")
            return INTERRUPTED
        except (BrokenPipeError, SystemExit) as end:
            pipe = isinstance(end, BrokenPipeError) or isinstance(end.__context__, BrokenPipeError)
            if pipe:  # the reader has seen enough, for instance head
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
                return 0
            return _exit_code(end)
        except Exception as error:
            if debug:
                traceback.print_exc()
            return _report(error)


def _exit_code(end: BaseException) -> int:
    """Return what `sys.exit` was called with: shell completion ends that way."""
    code = getattr(end, "code", DEFECT)
    return 0 if code is None else code if isinstance(code, int) else DEFECT


def _run(arguments: list[str]) -> int:
    import typer

    from mfuroof.cli.app import app

    try:
        code = app(arguments, prog_name="mfuroof", standalone_mode=False, obj=arguments)
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        if any(c.__name__ == "ClickException" for c in type(error).__mro__):  # where it lives depends on the version
            return _usage(error)
        raise
    if code == INTERRUPTED:  # what newer versions make of an interrupt
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _usage(error: Any) -> int:
    """Report a wrong command line; nothing to say means that help was printed instead of running."""
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError" or not message:
        return BAD_INPUT
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "mfuroof"
    _say(f"error: {_one_line(message).rstrip('.')}; see {command} --help")
    return BAD_INPUT


def _report(error: Exception) -> int:
    text = _one_line(str(error))
    if isinstance(error, OutputError):
        code = OUTPUT
    elif isinstance(error, MissingTableError | TableFormatError):
        code = DATA
    elif isinstance(error, MfuroofError):
        code = BAD_INPUT
    elif isinstance(error, OSError):
        code, text = OUTPUT, f"cannot write: {error.strerror or error}"
    else:
        code, text = DEFECT, f"{type(error).__name__}: {text} (a defect of mfuroof; --debug shows where)"
    _say(f"error: {text}")
    return code


def _one_line(text: str) -> str:
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())


def _say(text: str) -> None:
    print(f"mfuroof: {text}", file=sys.stderr)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, MfuroofWarning):
        _say(f"warning: {_one_line(str(message))}")
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))
