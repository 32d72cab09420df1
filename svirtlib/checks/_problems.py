"""Problems of seclabels as findings: guests with the same one share it."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.checks._check import listed
from svirtlib.checks._facts import Facts
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.guests import Guest
from svirtlib.problems import Layer, Problem

__all__ = ["findings_of"]

#: Evidence that one finding carries, of however many guests.
_SHOWN = 10

_VERBS = {Layer.PARSE: "read", Layer.DEFINE: "define", Layer.START: "start"}


def findings_of(facts: Facts, rule: str, severity: Severity) -> Iterator[Finding]:
    """Yield a finding for each problem that is reported under *rule*."""
    found: dict[tuple[str, str, str], list[tuple[Guest, Problem]]] = {}
    for guest in facts.inventory.guests:
        for problem in guest.seclabel_problems:
            if problem.rule == rule:
                key = (problem.code, problem.reason, problem.remedy)
                found.setdefault(key, []).append((guest, problem))
    for (code, reason, remedy), holders in found.items():
        problem = holders[0][1]
        names = {guest.name for guest, _ in holders}
        message = f"{listed(names)}: {problem.element}: {reason}"
        if len({held.element for _, held in holders}) > 1:
            message = f"{listed(names)}: a <seclabel>: {reason}"
        if problem.error is not None:
            message += (
                f"; libvirt refuses to {_VERBS[problem.layer]} it (error {problem.error}, "
                f"'{problem.fragment}')"
            )
        yield Finding(
            rule=rule,
            severity=severity,
            guests=tuple(sorted(names)),
            message=message,
            remedy=remedy,
            evidence=tuple(
                Evidence(
                    guest.source if held.line is None else f"{guest.source}:{held.line}",
                    f"{guest.name}: {held.element} ({code})",
                )
                for guest, held in holders[:_SHOWN]
            ),
        )
