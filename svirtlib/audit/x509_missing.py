"""TLS without its certificates."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity
from svirtlib.wording import listed, one_or_many


class X509Missing(AuditRule):
    """A service has TLS on, and a file that it needs is missing or is no certificate."""

    ident = "x509-missing"
    severity = Severity.HIGH
    summary = "TLS is on, and a certificate or key that it needs is missing or damaged"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each service."""
        for store in () if facts.host is None else facts.host.stores:
            remedy = (
                f"put ca-cert.pem, server-cert.pem and server-key.pem into {store.directory} (see "
                f"`certtool` and libvirt's page on TLS), or switch TLS off"
            )
            if store.service == "libvirt":
                remedy = "`virt-pki-validate` tells what belongs where"
            if store.missing:
                yield self.tell(
                    f"TLS is on for {store.service}, and {listed(store.missing)} "
                    f"{one_or_many(store.missing, 'does', 'do')} not exist: nothing with it starts",
                    remedy,
                    paths=store.missing,
                    evidence=[Evidence(path, "there is no such file") for path in store.missing],
                )
            for path, reason in store.broken:
                yield self.tell(
                    f"TLS is on for {store.service}, and {path} is of no use: {reason}",
                    remedy,
                    paths=[path],
                    evidence=(Evidence(path, reason),),
                )
