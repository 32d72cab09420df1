"""The key of the authority on the host that it vouches for."""

from __future__ import annotations

from collections.abc import Iterator

from svirtlib.audit._facts import AuditFacts
from svirtlib.audit._rule import AuditRule, Need
from svirtlib.findings import Evidence, Finding, Severity


class X509CaKeyOnHost(AuditRule):
    """The authority's private key lies beside the certificates of a service."""

    ident = "x509-ca-key-on-host"
    severity = Severity.HIGH
    summary = "the private key of the certificate authority lies on the host"
    since = "0.1"
    needs = frozenset({Need.CONFIG})

    def run(self, facts: AuditFacts) -> Iterator[Finding]:
        """Yield a finding for each service."""
        for store in () if facts.host is None else facts.host.stores:
            if store.authority_key is not None:
                yield self.tell(
                    f"the private key of the certificate authority lies on the host, in "
                    f"{store.authority_key}: who takes the host over can vouch for any other",
                    "move it to a machine that issues certificates and does nothing else; after a "
                    "break-in, start a new authority",
                    paths=[store.authority_key],
                    evidence=(Evidence(store.authority_key, "the key of the authority"),),
                )
