"""A firewall that lets in what it does not know."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class FwDefaultPolicy(AuditRule):
    """No chain at the input hook drops or rejects what no rule lets in."""

    ident = "fw-default-policy"
    severity = Severity.HIGH
    summary = "the firewall lets in what none of its rules is about"
    since = "0.1"
    needs = frozenset({Need.RULESET})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        if facts.practices.input_filtered is False:
            yield self.tell(
                "no chain at the input hook drops what no rule lets in: every port that a process "
                "opens can be reached",
                "`policy drop` for the chain at the hook input, after rules for what is to come in "
                "(established connections, ssh, ICMP, ICMPv6)",
                evidence=(
                    Evidence("nft", "no chain at the hook input drops what it does not know"),
                ),
            )
