"""Configuration that its own reader refuses."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class ConfParse(AuditRule):
    """A file of libvirt's, or of SASL's for it, that is refused: what reads it does not start."""

    ident = "conf-parse"
    severity = Severity.CRITICAL
    summary = "a configuration file is refused by what reads it, which then does not start"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each file."""
        for one in () if facts.host is None else facts.host.broken:
            where = one.path if one.line is None else f"{one.path}:{one.line}"
            yield self.tell(
                f"{where} is refused by what reads it: {one.reason}",
                "mend the line; libvirt's daemon keeps what it read when it started, and will not "
                "start again with this",
                paths=[one.path],
                evidence=(Evidence(where, one.reason),),
            )
