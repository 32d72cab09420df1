"""Certificates past their end, or near it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity

_SOON = dt.timedelta(days=30)


class X509Expired(AuditRule):
    """A server's or authority's certificate is not valid any more, not yet, or soon not."""

    ident = "x509-expired"
    severity = Severity.HIGH
    summary = "a certificate has expired, is not valid yet, or expires within 30 days"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each certificate."""
        if facts.host is None:
            return
        now = facts.host.now
        for store, one in facts.certificates:
            start, end = one.not_before.date(), one.not_after.date()
            severity = Severity.HIGH
            if one.not_after < now:
                fault = f"expired on {end}: clients refuse the connection"
            elif one.not_before > now:
                fault = f"is not valid before {start}: clients refuse the connection"
            elif one.not_after < now + _SOON:
                fault = f"expires on {end}"
                severity = Severity.MEDIUM
            else:
                continue
            yield self.tell(
                f"the certificate {one.path} of {store.service} {fault}",
                "issue a new one and put it in its place; guests that run keep the old one until "
                "they are started anew, or until `virsh domdisplay-reload GUEST` (VNC)",
                severity=severity,
                paths=[one.path],
                evidence=(Evidence(one.path, f"{one.subject}: {start} to {end}"),),
            )
