"""Lines of sudoers that let a viewer be started with more than one argument."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Optional

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity

_WILDCARD = re.compile(r"(?<!\\)(?:\\\\)*([?*\[])")


class SudoersWildcardArgument(AuditRule):
    """A viewer may be started with arguments that nobody thought of.

    ``?``, ``*`` and ``[`` match in arguments too, and ``*`` matches blanks and slashes; without
    any arguments in the line, all are allowed.
    """

    ident = "sudoers-wildcard-argument"
    severity = Severity.HIGH
    summary = "sudo lets a viewer be started with other arguments than the one that was meant"
    since = "0.1"
    needs = frozenset({Need.SUDOERS})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each line."""
        for one in facts.practices.sudo or ():
            fault = _fault(one.value.partition(" ")[2]) if one.starts_viewer else None
            if fault is None:
                continue
            severity, text = fault
            yield self.tell(
                f"{one.origin} lets {one.program} be started with {text}",
                "escape every wildcard in the line (`spice\\://HOST\\?tls-port\\=PORT`), as "
                "`svirt-label console-rules` does",
                severity=severity,
                paths=[one.origin],
                evidence=(Evidence(one.origin, one.value[:200]),),
            )


def _fault(arguments: str) -> Optional[tuple[Severity, str]]:
    if not arguments:
        return Severity.HIGH, "any arguments: the line names none"
    if arguments.startswith("^") and arguments.endswith("$"):
        # A regular expression, which has other signs.
        return None
    found = _WILDCARD.search(arguments)
    if found is None:
        return None
    if found[1] == "?":
        return Severity.MEDIUM, "another sign in the place of an unescaped '?'"
    return Severity.HIGH, f"whatever an unescaped '{found[1]}' matches"
