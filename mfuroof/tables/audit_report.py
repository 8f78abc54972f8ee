"""What an audit found: records for programs, JSON for tools, text for people, an exit code for scripts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["SEVERITIES", "AuditReport", "Finding"]

SEVERITIES = ("info", "warning", "error")
"""In this order: a fact; something that misleads whoever reads the file naively; something that cannot be right."""


@dataclass(frozen=True)
class Finding:
    """One thing that is true of a file.

    Attributes
    ----------
    severity
        One of `SEVERITIES`.
    code
        What kind of finding, for programs: ``peak``, ``denominator``, ``flop-convention``, ``unexplained-rows``,
        ``rounding``, ``zero-cells``, ``warm-up``, ``not-monotone``, ``beyond-roofline``, ``beyond-bandwidth``,
        ``repeats``, ``no-header``, ``unsorted``, ``coverage``, ``no-peaks``, ``unread``; of kernel tables
        ``outliers``, ``not-monotone``, ``gaps``, ``coverage``, ``rules``, ``elsewhere``.
    file
        Path below the folder.
    text
        One sentence.
    lines
        Lines of the file that it is about (the first twenty); of a Parquet table its rows, counted from 0.
    numbers
        The figures in the text, base SI units in the names.
    """

    severity: str
    code: str
    file: str
    text: str
    lines: tuple[int, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as plain values."""
        plain = {"severity": self.severity, "code": self.code, "file": self.file, "text": self.text}
        return {**plain, "lines": list(self.lines), "numbers": dict(self.numbers)}


@dataclass(frozen=True, repr=False)
class AuditReport:
    """All findings of a folder.

    Attributes
    ----------
    folder
        What was audited.
    files, rows
        How much was read.
    findings
        In path order, the worst of a file first.
    """

    folder: str
    files: int
    rows: int
    findings: tuple[Finding, ...]

    def of(self, *, severity: str | None = None, code: str | None = None) -> tuple[Finding, ...]:
        """Return the findings of one severity, code or both."""
        chosen = (f for f in self.findings if severity is None or f.severity == severity)
        return tuple(f for f in chosen if code is None or f.code == code)

    @property
    def exit_code(self) -> int:
        """0 where everything is as it should be, 1 with warnings, 2 with errors."""
        return max((SEVERITIES.index(f.severity) for f in self.findings), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        counts = {severity: len(self.of(severity=severity)) for severity in SEVERITIES}
        head = {"folder": self.folder, "files": self.files, "rows": self.rows, "exit_code": self.exit_code}
        return {**head, "counts": counts, "findings": [f.to_dict() for f in self.findings]}

    def to_json(self, indent: int | None = 2) -> str:
        """Return the report as JSON text."""
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def text(self, *, info: bool = False) -> str:
        """Return the report for people: errors and warnings by file, and on request plain facts too."""
        shown = [f for f in self.findings if info or f.severity != "info"]
        lines = [f"{self.folder}: {self.files} files, {self.rows} rows"]
        last = ""
        for finding in shown:
            if finding.file != last:
                lines.append(finding.file)
                last = finding.file
            lines.append(f"  {finding.severity:<7}  {finding.code}: {finding.text}")
        counts = ", ".join(f"{len(self.of(severity=s))} {s}" for s in reversed(SEVERITIES))
        return "\n".join([*lines, counts])

    __str__ = text
    __repr__ = text
