"""The report as monitoring plugins tell it: one line, details below, and a status of their own.

Statuses are those of the Monitoring Plugins' guidelines: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
"""

from __future__ import annotations

import enum

from svirtlib.findings import Report, Severity
from svirtlib.formats.plain import printable

__all__ = ["State", "format_error", "format_report", "state"]


class State(enum.IntEnum):
    """What a monitoring system is told, as its exit status."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


def state(report: Report, fail_on: Severity) -> State:
    """Return the state: critical for high and critical findings, warning for lesser ones.

    Args:
        report: the outcome.
        fail_on: findings below this severity count for nothing.
    """
    worst = report.worst
    if worst is not None and worst >= fail_on:
        return State.CRITICAL if worst >= Severity.HIGH else State.WARNING
    return State.OK if report.complete else State.UNKNOWN


def format_report(report: Report, outcome: State) -> str:
    """Return the line, the figures, and a line for each finding and gap."""
    counts = {
        severity.label: sum(finding.severity is severity for finding in report.findings)
        for severity in sorted(Severity, reverse=True)
    }
    told = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
    summary = f"{report.guests} guests, {told or 'no findings'}"
    if report.unreadable:
        summary += f", {len(report.unreadable)} not judged"
    figures = " ".join(f"{label}={count};;;0" for label, count in counts.items())
    figures += f" guests={report.guests};;;0 unreadable={len(report.unreadable)};;;0"
    lines = [f"SVIRT {outcome.name} - {summary} | {figures}"]
    lines += [
        f"{finding.severity.label}: {finding.message} [{finding.rule}]"
        for finding in report.findings
    ]
    lines += [f"not judged: {entry.what}: {entry.reason}" for entry in report.unreadable]
    # What stands behind a bar is read as figures.
    first, *others = (printable(line) for line in lines)
    return "".join(f"{line}\n" for line in (first, *(text.replace("|", "/") for text in others)))


def format_error(message: str) -> str:
    """Return the line for a check that could not be made."""
    return f"SVIRT {State.UNKNOWN.name} - {printable(message).replace('|', '/')}\n"
