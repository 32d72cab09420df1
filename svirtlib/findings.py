"""What the checks find, and the report that collects it."""

from __future__ import annotations

import enum
from typing import Optional

from attr import frozen

from svirtlib.guests import Host, Unreadable

__all__ = ["Evidence", "Finding", "NotRun", "Report", "Severity"]


class Severity(enum.IntEnum):
    """How bad a finding is; the order is that of the numbers."""

    INFO = 0
    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """The severity as options and reports write it."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Severity:
        """Parse ``critical``, ``high``, ``medium``, ``low`` or ``info``.

        Raises:
            ValueError: *text* is none of them.
        """
        for severity in cls:
            if severity.label == text:
                return severity
        raise ValueError(f"no severity {text!r}")


@frozen
class Evidence:
    """What a finding rests on.

    Attributes:
        source: where it was seen: a file, ``libvirt``, ``/proc/123/attr/current``.
        text: what was seen there.
    """

    source: str
    text: str


@frozen
class Finding:
    """One cause, with all that it touches.

    Attributes:
        rule: identifier of the rule.
        severity: how bad it is.
        guests: names of those that cause it, sorted.
        message: who reaches whose what, in one sentence.
        remedy: what to do, with the command.
        reaches: names of those that it exposes, sorted; may be cut.
        reaches_count: how many they are in all.
        paths: images concerned, sorted.
        labels: contexts concerned.
        evidence: what it rests on.
        file: of a finding about one place in a document: the document, else None.
        line: the line in it, counted from 1, if it is known.
        layer: who objects there, and when: ``parse``, ``define`` or ``start`` (libvirt),
            ``policy`` (the kernel), ``advice`` (nobody).
        code: which check objects there, such as ``P4``.
    """

    rule: str
    severity: Severity
    guests: tuple[str, ...]
    message: str
    remedy: str
    reaches: tuple[str, ...] = ()
    reaches_count: int = 0
    paths: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    evidence: tuple[Evidence, ...] = ()
    file: Optional[str] = None
    line: Optional[int] = None
    layer: Optional[str] = None
    code: Optional[str] = None

    @property
    def sort_key(self) -> tuple[object, ...]:
        """The order of reports: the worst first, then by rule and subject."""
        return (-self.severity, self.rule, self.guests, self.paths, self.labels, self.message)


@frozen
class NotRun:
    """A rule that was not run, and why."""

    rule: str
    reason: str


@frozen
class Report:
    """The outcome of a run of the checks.

    Attributes:
        host: the host that was looked at; without a name where there was none.
        guests: how many guests were looked at.
        findings: in the order of :attr:`Finding.sort_key`.
        unreadable: what stayed unknown; the report is incomplete if there is any.
        not_run: rules that the source gives nothing for.
        notes: what happened on the way that leaves nothing unknown.
        ignored: how many findings were left out at the user's wish.
    """

    host: Host
    guests: int
    findings: tuple[Finding, ...] = ()
    unreadable: tuple[Unreadable, ...] = ()
    not_run: tuple[NotRun, ...] = ()
    notes: tuple[str, ...] = ()
    ignored: int = 0

    @property
    def complete(self) -> bool:
        """Whether all that was to be looked at could be."""
        return not self.unreadable

    @property
    def worst(self) -> Optional[Severity]:
        """The highest severity found, or None without findings."""
        return max((finding.severity for finding in self.findings), default=None)
