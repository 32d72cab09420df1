"""A switch for client certificates that SPICE does not have."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity

_KEY = "spice_tls_x509_verify"


class SpiceTlsVerifyNoop(AuditRule):
    """``spice_tls_x509_verify`` is set; libvirt has no such key, and says nothing."""

    ident = "spice-tls-verify-noop"
    severity = Severity.MEDIUM
    summary = "spice_tls_x509_verify is set, which does nothing: SPICE checks no client certificate"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if the key is there."""
        conf = facts.conf
        if conf is None or _KEY not in dict(conf.unknown):
            return
        yield self.tell(
            f"{_KEY} in {conf.source} does nothing: libvirt knows no such key, and SPICE checks "
            f"no client certificates; clients without one are let in",
            "take it out; to tell clients apart use spice_sasl = 1 with gssapi, or a ticket for "
            "each guest",
            paths=[conf.source],
            evidence=(Evidence(conf.where(_KEY), f"{_KEY} is set"),),
        )
