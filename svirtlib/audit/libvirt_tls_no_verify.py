"""libvirt over TLS for anybody."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class LibvirtTlsNoVerify(AuditRule):
    """libvirt's daemon listens with TLS and verifies no client."""

    ident = "libvirt-tls-no-verify"
    severity = Severity.CRITICAL
    summary = "libvirt can be managed over TLS by clients that prove nothing"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield one finding if it is so."""
        found = facts.remote("tls")
        if found is None or not facts.daemon_flag("tls_no_verify_certificate"):
            return
        if (facts.daemon_text("auth_tls") or "none") != "none":
            return
        yield self.tell(
            "libvirt's daemon listens with TLS, verifies no client certificate and asks for no "
            "login: who reaches the port is root on this host",
            "take tls_no_verify_certificate out, and name who may come in with tls_allowed_dn_list",
            evidence=(
                found,
                Evidence(
                    facts.daemon_where("tls_no_verify_certificate") or "",
                    "tls_no_verify_certificate is 1",
                ),
            ),
        )
