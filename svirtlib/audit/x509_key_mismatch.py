"""A key that is another certificate's."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class X509KeyMismatch(AuditRule):
    """The private key beside a certificate is not its own."""

    ident = "x509-key-mismatch"
    severity = Severity.HIGH
    summary = "the private key beside a certificate belongs to another one"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each service."""
        for store in () if facts.host is None else facts.host.stores:
            if store.key_matches is False and store.certificate is not None:
                path = store.certificate.path
                yield self.tell(
                    f"the private key beside {path} is not that of the certificate: TLS of "
                    f"{store.service} does not start",
                    "put the key that the certificate was requested with in its place, or request "
                    "a new certificate with the key that is there",
                    paths=[path],
                    evidence=(Evidence(path, "its public key is not that of the private key"),),
                )
